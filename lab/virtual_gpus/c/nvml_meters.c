/* Virtual libnvidia-ml.so.1: what a GPU's meters show: power, energy, heat, load, memory, processes. */
#define _GNU_SOURCE
#include "node.h"
#include "nvml.h"

#include <math.h>
#include <time.h>

#define MINIMUM_LIMIT_W 100

/* Millijoules at the counter's last tick. A kernel that was entered late corrects the past: never show less. */
static unsigned long long energy_mj(uint32_t gpu, const struct sim *sim) {
	double *shown = &nvml_node()->gpu[gpu].shown_j;
	*shown = fmax(*shown, sim->counter_j[1]);
	return (unsigned long long)(*shown * 1e3);
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *energy) {
	VIEW(device);
	*energy = energy_mj(gpu, &sim);
	return NVML_SUCCESS;
}

static unsigned instant_mw(uint32_t gpu, const struct sim *sim) {
	return (unsigned)lround(1e3 * sim_power_w(nvml_node(), gpu, sim, sim_clock(nvml_node(), gpu, sim)));
}

/* Averaged over the counter's last period, as the A100's sensor does; before the second tick, as it is now. */
static unsigned average_mw(uint32_t gpu, const struct sim *sim) {
	double joules = sim->counter_j[1] - sim->counter_j[0];
	return sim->counter_j[0] > 0 ? (unsigned)lround(1e3 * joules / nvml_node()->config.counter_period_s) : instant_mw(gpu, sim);
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *power) {
	VIEW(device);
	*power = average_mw(gpu, &sim);
	return NVML_SUCCESS;
}

static unsigned limit_mw(const struct sim *sim) {
	return (unsigned)lround(sim->power_limit_w * 1e3);
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned *limit) {
	VIEW(device);
	*limit = limit_mw(&sim);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned *limit) {
	return nvmlDeviceGetPowerManagementLimit(device, limit);
}

nvmlReturn_t nvmlDeviceGetPowerManagementDefaultLimit(nvmlDevice_t device, unsigned *limit) {
	VIEW(device);
	*limit = (unsigned)lround(nvml_node()->config.power_limit_w * 1e3);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned *low, unsigned *high) {
	*low = MINIMUM_LIMIT_W * 1000;
	return nvmlDeviceGetPowerManagementDefaultLimit(device, high);
}

nvmlReturn_t nvmlDeviceSetPowerManagementLimit(nvmlDevice_t device, unsigned limit) {
	uint32_t index;
	nvmlReturn_t status = nvml_device(device, &index);
	if (status || (status = nvml_may_administer()))
		return status;
	if (limit < MINIMUM_LIMIT_W * 1000 || limit > nvml_node()->config.power_limit_w * 1e3)
		return NVML_ERROR_INVALID_ARGUMENT;
	struct gpu *gpu = &nvml_node()->gpu[index];
	struct sim sim;
	gpu_lock(nvml_node(), index, &sim);
	sim_advance(nvml_node(), index, &sim, now_ns());
	sim.power_limit_w = limit / 1e3;
	gpu_commit(gpu, &sim);
	gpu_notify(gpu);
	gpu_unlock(gpu);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values) {
	VIEW(device);
	struct timespec wall;
	clock_gettime(CLOCK_REALTIME, &wall);
	for (nvmlFieldValue_t *value = values; value < values + count; value++) {
		value->timestamp = wall.tv_sec * 1000000ll + wall.tv_nsec / 1000;
		value->latencyUsec = 0;
		value->valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
		value->nvmlReturn = NVML_SUCCESS;
		value->value.ullVal = 0;
		switch (value->fieldId) {
		case NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION:
			value->valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
			value->value.ullVal = energy_mj(gpu, &sim);
			break;
		case NVML_FI_DEV_POWER_AVERAGE: value->value.uiVal = average_mw(gpu, &sim); break;
		case NVML_FI_DEV_POWER_INSTANT: value->value.uiVal = instant_mw(gpu, &sim); break;
		case NVML_FI_DEV_POWER_MIN_LIMIT: value->value.uiVal = MINIMUM_LIMIT_W * 1000; break;
		case NVML_FI_DEV_POWER_MAX_LIMIT:
		case NVML_FI_DEV_POWER_DEFAULT_LIMIT: value->value.uiVal = (unsigned)lround(nvml_node()->config.power_limit_w * 1e3); break;
		case NVML_FI_DEV_POWER_CURRENT_LIMIT: value->value.uiVal = limit_mw(&sim); break;
		default: value->nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
		}
	}
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned sensor, unsigned *temperature) {
	VIEW(device);
	if (sensor)
		return NVML_ERROR_INVALID_ARGUMENT;
	*temperature = (unsigned)lround(sim.temperature_c);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature) {
	return nvmlDeviceGetTemperature(device, temperature->sensorType, (unsigned *)&temperature->temperature);
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates) {
	VIEW(device);
	double busy = (sim.counter_busy_s[1] - sim.counter_busy_s[0]) / nvml_node()->config.counter_period_s;
	rates->gpu = (unsigned)lround(100 * busy);
	rates->memory = (unsigned)lround(40 * busy);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, unsigned *state) {
	VIEW(device);
	*state = sim.owners ? 0 : 8;
	return NVML_SUCCESS;
}

/* Calls `each` on every process with a context; pids are as those processes see themselves. */
static unsigned list_processes(uint32_t gpu, unsigned room, nvmlProcessInfo_t *processes, unsigned long long *memory) {
	unsigned found = 0;
	*memory = 0;
	for (int i = 0; i < MAX_OWNERS; i++) {
		struct owner *owner = &nvml_node()->gpu[gpu].owner[i];
		if (!atomic_load(&owner->used))
			continue;
		if (processes && found < room)
			processes[found] = (nvmlProcessInfo_t){owner->pid, owner->memory_bytes, ~0u, ~0u};
		*memory += owner->memory_bytes;
		found++;
	}
	return found;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *processes) {
	VIEW(device);
	unsigned room = *count;
	unsigned long long memory;
	*count = list_processes(gpu, room, processes, &memory);
	return *count > (processes ? room : 0) ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *processes) {
	return nvmlDeviceGetComputeRunningProcesses_v3(device, count, processes);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *info) {
	VIEW(device);
	info->total = 80ull << 30;
	info->reserved = 600ull << 20;
	list_processes(gpu, 0, NULL, &info->used);
	info->free = info->total - info->reserved - info->used;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *info) {
	nvmlMemory_v2_t more;
	nvmlReturn_t status = nvmlDeviceGetMemoryInfo_v2(device, &more);
	if (!status)
		*info = (nvmlMemory_t){more.total, more.free, more.used + more.reserved};
	return status;
}
