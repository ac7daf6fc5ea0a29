/* What only the makers of virtual GPUs do: lay a node's file, look inside, break things. Neither NVML nor CUDA. */
#define _GNU_SOURCE
#include "node.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* What state.py mirrors as GpuState. Clocks are in MHz, 0 = default. */
struct look {
	double energy_j, busy_s, power_w, temperature_c, power_limit_w;
	uint64_t kernels, sets, resets;
	int64_t now_ns, change_ns; /* change_ns: when the latest change, done or pending, gets into force */
	uint32_t clock_mhz, lock_low_mhz, lock_high_mhz, pending, owners, running;
	uint32_t next_low_mhz, next_high_mhz; /* after all that is pending */
};

/* Make `path` anew, at once whole; 0 or errno. */
int virtual_gpus_create(const char *path, const struct config *config, const struct kernel *kernels) {
	if (config->size != sizeof *config || config->gpu_count > MAX_GPUS || config->kernel_count > MAX_KERNELS || config->clock_count > MAX_CLOCKS)
		return EINVAL;
	char partial[4096];
	snprintf(partial, sizeof partial, "%s.%d", path, getpid());
	int fd = open(partial, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0)
		return errno;
	struct node *node = MAP_FAILED;
	if (!fchmod(fd, 0666) && !ftruncate(fd, sizeof *node))
		node = mmap(NULL, sizeof *node, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	int error = node == MAP_FAILED ? errno : 0;
	close(fd);
	if (!error) {
		node->config = *config;
		memcpy(node->kernel, kernels, config->kernel_count * sizeof *kernels);
		node_initialise(node);
		munmap(node, sizeof *node);
		error = rename(partial, path) ? errno : 0;
	}
	if (error)
		unlink(partial);
	return error;
}

int virtual_gpus_config(const char *path, struct config *config) {
	struct node *node = node_map(path);
	if (!node)
		return errno;
	*config = node->config;
	munmap(node, sizeof *node);
	return 0;
}

static uint32_t mhz(const struct config *c, int32_t clock) {
	return clock == NO_LOCK ? 0 : c->clock_min_mhz + c->clock_step_mhz * (uint32_t)clock;
}

int virtual_gpus_look(const char *path, uint32_t gpu, struct look *look) {
	struct node *node = node_map(path);
	if (!node)
		return errno;
	if (gpu >= node->config.gpu_count) {
		munmap(node, sizeof *node);
		return ENODEV;
	}
	const struct config *c = &node->config;
	struct sim sim;
	gpu_lock(node, gpu, &sim);
	int64_t now = now_ns();
	sim_advance(node, gpu, &sim, now);
	int clock = sim_clock(node, gpu, &sim);
	const struct change *last = sim.changes ? &sim.change[sim.changes - 1] : NULL;
	*look = (struct look){
	    .energy_j = sim.energy_j,
	    .busy_s = sim.busy_s,
	    .power_w = sim_power_w(node, gpu, &sim, clock),
	    .temperature_c = sim.temperature_c,
	    .power_limit_w = sim.power_limit_w,
	    .kernels = node->gpu[gpu].sequence,
	    .sets = node->gpu[gpu].sets,
	    .resets = node->gpu[gpu].resets,
	    .now_ns = now,
	    .change_ns = last ? last->t : sim.changed,
	    .clock_mhz = mhz(c, clock),
	    .lock_low_mhz = mhz(c, sim.low),
	    .lock_high_mhz = mhz(c, sim.high),
	    .pending = sim.changes,
	    .owners = (uint32_t)__builtin_popcount(sim.owners),
	    .running = sim.run.active,
	    .next_low_mhz = mhz(c, last ? last->low : sim.low),
	    .next_high_mhz = mhz(c, last ? last->high : sim.high),
	};
	gpu_unlock(&node->gpu[gpu]);
	munmap(node, sizeof *node);
	return 0;
}

/* The orders of a GPU's clock from number `first` on, as far as they are kept and there is room. `first` becomes the
 * number of the first of them, `count` how many there are. */
int virtual_gpus_orders(const char *path, uint32_t gpu, uint64_t *first, struct order *orders, uint32_t *count) {
	struct node *node = node_map(path);
	if (!node)
		return errno;
	uint32_t room = *count;
	int error = gpu < node->config.gpu_count ? 0 : ENODEV;
	*count = 0;
	if (!error) {
		struct sim sim;
		struct gpu *one = &node->gpu[gpu];
		gpu_lock(node, gpu, &sim);
		if (one->orders > *first + MAX_ORDERS)
			*first = one->orders - MAX_ORDERS;
		while (*count < room && *first + *count < one->orders) {
			orders[*count] = one->order[(*first + *count) % MAX_ORDERS];
			++*count;
		}
		gpu_unlock(one);
	}
	munmap(node, sizeof *node);
	return error;
}

/* A GPU that fell off the bus, a driver that refuses to set clocks with the given NVML error, calls that hang, or
 * kernels that heat slows by a share. */
int virtual_gpus_break(const char *path, uint32_t gpu, uint32_t lost, uint32_t set_error, uint32_t hang,
                       double slower) {
	struct node *node = node_map(path);
	if (!node)
		return errno;
	if (gpu < node->config.gpu_count) {
		node->gpu[gpu].lost = lost;
		node->gpu[gpu].set_error = set_error;
		node->gpu[gpu].slower = slower;
		atomic_store(&node->gpu[gpu].hang, hang);
		gpu_notify(&node->gpu[gpu]);
	}
	int error = gpu < node->config.gpu_count ? 0 : ENODEV;
	munmap(node, sizeof *node);
	return error;
}

/* Sizes of the mirrored structs: config, kernel, look, order. */
void virtual_gpus_sizes(uint32_t sizes[4]) {
	sizes[0] = sizeof(struct config);
	sizes[1] = sizeof(struct kernel);
	sizes[2] = sizeof(struct look);
	sizes[3] = sizeof(struct order);
}
