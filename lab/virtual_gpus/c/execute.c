/* One kernel on one GPU: start it at its planned moment, wait until it ends, whatever the clock does meanwhile. */
#include "node.h"

/* The moment at which kernel `sequence` ended, or NEVER while it runs. */
static int64_t ended(const struct gpu *gpu, uint32_t owner, const struct sim *sim, uint64_t sequence) {
	if (sim->run.sequence == sequence)
		return sim->run.active ? NEVER : sim->last_end;
	return gpu->owner[owner].last_sequence >= sequence ? gpu->owner[owner].last_end : sim->last_end;
}

/* Wait until the GPU runs no kernel; returns with the GPU locked and `sim` as committed. */
static void wait_idle(struct node *node, uint32_t index, struct sim *sim) {
	struct gpu *gpu = &node->gpu[index];
	for (;;) {
		gpu_lock(node, index, sim);
		if (!sim->run.active)
			return;
		int64_t end = sim_kernel_end(node, index, sim);
		if (end <= now_ns()) {
			sim_advance(node, index, sim, end);
			gpu_commit(gpu, sim);
			return;
		}
		uint32_t epoch = atomic_load(&gpu->epoch);
		gpu_unlock(gpu);
		gpu_wait(gpu, epoch, end);
	}
}

int execute_kernel(struct node *node, uint32_t index, uint32_t owner, uint32_t kernel, int64_t ready, int64_t *end) {
	const struct config *c = &node->config;
	struct gpu *gpu = &node->gpu[index];
	struct sim sim;
	wait_idle(node, index, &sim);
	if (gpu->lost || !(sim.owners & 1u << owner)) {
		gpu_unlock(gpu);
		return 0;
	}
	int64_t start = ready > sim.last_end ? ready : sim.last_end;
	sim_advance(node, index, &sim, start);
	uint64_t sequence = ++gpu->sequence;
	sim.run = (struct run){
	    .active = 1,
	    .kernel = kernel,
	    .owner = owner,
	    .sequence = sequence,
	    .time_factor = c->gpu_time[index] * (1 + gpu->slower) * (1 + c->time_noise * gpu_gaussian(gpu)),
	    .power_factor = 1 + c->energy_noise * gpu_gaussian(gpu),
	};
	gpu_commit(gpu, &sim);
	while ((*end = ended(gpu, owner, &sim, sequence)) == NEVER) {
		int64_t planned = sim_kernel_end(node, index, &sim);
		if (planned <= now_ns()) {
			sim_advance(node, index, &sim, planned);
			gpu_commit(gpu, &sim);
			continue;
		}
		uint32_t epoch = atomic_load(&gpu->epoch);
		gpu_unlock(gpu);
		gpu_wait(gpu, epoch, planned);
		gpu_lock(node, index, &sim);
	}
	int lost = gpu->lost;
	gpu_unlock(gpu);
	return !lost;
}
