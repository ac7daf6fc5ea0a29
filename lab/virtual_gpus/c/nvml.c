/* Virtual libnvidia-ml.so.1, its life, the GPUs' handles, and clocks with their lag. */
#define _GNU_SOURCE
#include "nvml.h"

#include "node.h"

#include <linux/capability.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t life = PTHREAD_MUTEX_INITIALIZER;
static int users;
static int devices = -1; /* open from the first nvmlInit to the last nvmlShutdown, as /dev/nvidia* are; locked as shared */
static struct node *node;
static uint32_t visible[MAX_GPUS];
static unsigned visible_count;

static int by_number(const void *a, const void *b) {
	return (int)*(const uint32_t *)a - (int)*(const uint32_t *)b;
}

nvmlReturn_t nvmlInitWithFlags(unsigned flags) {
	(void)flags;
	pthread_mutex_lock(&life);
	node = node_attach();
	if (node && !users++) {
		if ((devices = node_open()) >= 0)
			flock(devices, LOCK_SH);
		visible_count = (unsigned)node_visible(node, visible);
		qsort(visible, visible_count, sizeof *visible, by_number); /* by bus, whatever order was asked for */
	}
	pthread_mutex_unlock(&life);
	return node ? NVML_SUCCESS : NVML_ERROR_DRIVER_NOT_LOADED;
}

nvmlReturn_t nvmlInit_v2(void) {
	return nvmlInitWithFlags(0);
}

nvmlReturn_t nvmlInit(void) {
	return nvmlInitWithFlags(0);
}

nvmlReturn_t nvmlShutdown(void) {
	pthread_mutex_lock(&life);
	int was = users;
	users -= users > 0;
	if (was == 1 && devices >= 0) {
		close(devices);
		devices = -1;
	}
	pthread_mutex_unlock(&life);
	return was ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
}

struct node *nvml_node(void) {
	return users ? node : NULL;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
	if (!nvml_node())
		return NVML_ERROR_UNINITIALIZED;
	*count = visible_count;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCount(unsigned *count) {
	return nvmlDeviceGetCount_v2(count);
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
	if (!nvml_node())
		return NVML_ERROR_UNINITIALIZED;
	if (index >= visible_count)
		return NVML_ERROR_INVALID_ARGUMENT;
	*device = (nvmlDevice_t)(uintptr_t)(index + 1);
	return node->gpu[visible[index]].lost ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice_t *device) {
	return nvmlDeviceGetHandleByIndex_v2(index, device);
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned *index) {
	uint32_t gpu;
	nvmlReturn_t status = nvml_device(device, &gpu);
	*index = (unsigned)((uintptr_t)device - 1);
	return status;
}

nvmlReturn_t nvml_device(nvmlDevice_t device, uint32_t *gpu) {
	if (!nvml_node())
		return NVML_ERROR_UNINITIALIZED;
	uintptr_t index = (uintptr_t)device - 1;
	if (index >= visible_count)
		return NVML_ERROR_INVALID_ARGUMENT;
	*gpu = visible[index];
	return node->gpu[*gpu].lost ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
}

void nvml_view(uint32_t gpu, struct sim *sim) {
	gpu_hang(&node->gpu[gpu], HANG_READ);
	gpu_lock(node, gpu, sim);
	sim_advance(node, gpu, sim, now_ns());
	gpu_unlock(&node->gpu[gpu]);
}

/* As the driver: the capability that counts, not the user id. */
nvmlReturn_t nvml_may_administer(void) {
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}};
	if (!node->config.root_only)
		return NVML_SUCCESS;
	if (syscall(SYS_capget, &header, data))
		return NVML_ERROR_NO_PERMISSION;
	return data[0].effective & 1u << CAP_SYS_ADMIN ? NVML_SUCCESS : NVML_ERROR_NO_PERMISSION;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *current, unsigned *pending) {
	VIEW(device);
	*current = node->gpu[gpu].mig;
	*pending = node->gpu[gpu].mig_pending;
	return NVML_SUCCESS;
}

/* As nvml.h and NVIDIA's MIG user guide have it: the mode changes with a reset of the GPU, for which nobody else may have
 * the devices open nor a context on it ("in use by another client"); until then it is pending, and `activation` says why. */
nvmlReturn_t nvmlDeviceSetMigMode(nvmlDevice_t device, unsigned mode, nvmlReturn_t *activation) {
	uint32_t gpu;
	nvmlReturn_t status = nvml_device(device, &gpu);
	if (status || (status = nvml_may_administer()))
		return status;
	if (mode > 1)
		return NVML_ERROR_INVALID_ARGUMENT;
	struct sim sim;
	nvml_view(gpu, &sim);
	pthread_mutex_lock(&life);
	node->gpu[gpu].mig_pending = mode;
	int alone = devices >= 0 && !sim.owners && !flock(devices, LOCK_EX | LOCK_NB);
	if (alone)
		node->gpu[gpu].mig = mode;
	if (devices >= 0)
		flock(devices, LOCK_SH);
	*activation = alone ? NVML_SUCCESS : NVML_ERROR_IN_USE;
	pthread_mutex_unlock(&life);
	return NVML_SUCCESS;
}

static unsigned mhz(int clock) {
	return node->config.clock_min_mhz + node->config.clock_step_mhz * (unsigned)clock;
}

static int top_clock(void) {
	return (int)node->config.clock_count - 1;
}

/* The largest supported clock at or under `wanted`. */
static int clock_index(unsigned wanted) {
	const struct config *c = &node->config;
	if (wanted < c->clock_min_mhz)
		return 0;
	int clock = (int)((wanted - c->clock_min_mhz) / c->clock_step_mhz);
	return clock > top_clock() ? top_clock() : clock;
}

/* Changes queue behind each other; a driver that is swamped forgets all but the latest. */
static void queue_change(uint32_t index, int low, int high, int64_t called) {
	const struct config *c = &node->config;
	struct gpu *gpu = &node->gpu[index];
	struct sim sim;
	int64_t now = now_ns();
	gpu_lock(node, index, &sim);
	if (sim.changes == MAX_CHANGES)
		sim_advance(node, index, &sim, sim.change[0].t);
	struct change *last = sim.changes ? &sim.change[sim.changes - 1] : NULL;
	int before = last ? last->high : sim.high, target = high == NO_LOCK ? top_clock() : high;
	int up = target > (before == NO_LOCK ? top_clock() : before);
	double lag_s = c->lag_s[up][target] * (1 + c->lag_spread * gpu_random(gpu));
	unsigned ahead = 0;
	for (uint32_t i = 0; i < sim.changes; i++)
		ahead += sim.change[i].t > now;
	if (ahead == MAX_CHANGES_AHEAD) {
		last->low = low;
		last->high = high;
	} else {
		int64_t start = last && last->t > now ? last->t : now;
		sim.change[sim.changes++] = (struct change){start + llround(lag_s * 1e9), low, high};
	}
	if (high == NO_LOCK)
		gpu->resets++;
	else
		gpu->sets++;
	gpu->order[gpu->orders++ % MAX_ORDERS] = (struct order){called, now, low == NO_LOCK ? 0 : mhz(low), high == NO_LOCK ? 0 : mhz(high)};
	gpu_commit(gpu, &sim);
	gpu_notify(gpu);
	gpu_unlock(gpu);
}

static nvmlReturn_t change_clocks(nvmlDevice_t device, int low, int high) {
	uint32_t gpu;
	int64_t called = now_ns();
	nvmlReturn_t status = nvml_device(device, &gpu);
	if (status || (status = nvml_may_administer()))
		return status;
	gpu_hang(&node->gpu[gpu], high == NO_LOCK ? HANG_RESET : HANG_SET);
	if (node->gpu[gpu].set_error)
		return (nvmlReturn_t)node->gpu[gpu].set_error;
	int64_t until = now_ns() + llround(node->config.block_s * 1e9);
	queue_change(gpu, low, high, called);
	struct timespec deadline = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &deadline, NULL);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceSetGpuLockedClocks(nvmlDevice_t device, unsigned low, unsigned high) {
	if (!nvml_node())
		return NVML_ERROR_UNINITIALIZED;
	if (low > high || high < mhz(0) || low > mhz(top_clock()))
		return NVML_ERROR_INVALID_ARGUMENT;
	return change_clocks(device, clock_index(low), clock_index(high));
}

nvmlReturn_t nvmlDeviceResetGpuLockedClocks(nvmlDevice_t device) {
	return change_clocks(device, NO_LOCK, NO_LOCK);
}

/* The A100's memory clock is fixed here: a lock on it is checked and changes nothing. */
nvmlReturn_t nvmlDeviceSetMemoryLockedClocks(nvmlDevice_t device, unsigned low, unsigned high) {
	uint32_t gpu;
	nvmlReturn_t status = nvml_device(device, &gpu);
	if (status || (status = nvml_may_administer()))
		return status;
	return low > high ? NVML_ERROR_INVALID_ARGUMENT : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceResetMemoryLockedClocks(nvmlDevice_t device) {
	return nvmlDeviceSetMemoryLockedClocks(device, 0, 0);
}

nvmlReturn_t nvmlDeviceGetSupportedMemoryClocks(nvmlDevice_t device, unsigned *count, unsigned *clocks) {
	VIEW(device);
	unsigned room = *count;
	*count = 1;
	if (!clocks || room < 1)
		return NVML_ERROR_INSUFFICIENT_SIZE;
	clocks[0] = node->config.memory_clock_mhz;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetSupportedGraphicsClocks(nvmlDevice_t device, unsigned memory, unsigned *count, unsigned *clocks) {
	VIEW(device);
	unsigned room = *count;
	if (memory != node->config.memory_clock_mhz)
		return NVML_ERROR_NOT_FOUND;
	*count = node->config.clock_count;
	if (!clocks || room < *count)
		return NVML_ERROR_INSUFFICIENT_SIZE;
	for (unsigned i = 0; i < *count; i++)
		clocks[i] = mhz(top_clock() - (int)i);
	return NVML_SUCCESS;
}

/* Graphics and SM clock are one; the video clock follows at about nine tenths, as on the board. */
static unsigned clock_of_type(unsigned type, unsigned sm) {
	return type == NVML_CLOCK_MEM ? node->config.memory_clock_mhz : type == NVML_CLOCK_VIDEO ? sm * 9 / 10 : sm;
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned type, unsigned *clock) {
	VIEW(device);
	if (type >= NVML_CLOCK_COUNT)
		return NVML_ERROR_INVALID_ARGUMENT;
	*clock = clock_of_type(type, mhz(sim_clock(node, gpu, &sim)));
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned type, unsigned *clock) {
	VIEW(device);
	if (type >= NVML_CLOCK_COUNT)
		return NVML_ERROR_INVALID_ARGUMENT;
	*clock = clock_of_type(type, mhz(top_clock()));
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetClock(nvmlDevice_t device, unsigned type, unsigned id, unsigned *clock) {
	return id == NVML_CLOCK_ID_CURRENT ? nvmlDeviceGetClockInfo(device, type, clock) : nvmlDeviceGetMaxClockInfo(device, type, clock);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons) {
	VIEW(device);
	int top = sim.high == NO_LOCK ? top_clock() : sim.high;
	*reasons = 0;
	if (!sim.owners)
		*reasons |= nvmlClocksEventReasonGpuIdle;
	else if (sim_clock(node, gpu, &sim) < top)
		*reasons |= nvmlClocksEventReasonSwPowerCap;
	if (sim.owners && node->gpu[gpu].slower > 0)
		*reasons |= nvmlClocksEventReasonSwThermalSlowdown;
	if (top < top_clock())
		*reasons |= nvmlClocksEventReasonApplicationsClocksSetting;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons) {
	return nvmlDeviceGetCurrentClocksEventReasons(device, reasons);
}

nvmlReturn_t nvmlDeviceGetSupportedClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons) {
	VIEW(device);
	*reasons = supportedReasons;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetSupportedClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons) {
	return nvmlDeviceGetSupportedClocksEventReasons(device, reasons);
}
