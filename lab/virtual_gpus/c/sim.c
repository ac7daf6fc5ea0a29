/* How a virtual GPU goes on in time: clocks, power, heat, counters and the progress of a kernel.
 *
 * Everything is constant between two events (a clock change gets into force, the pause after it is over, a kernel ends,
 * the counters tick, and, where power depends on heat, a short heat step), so the energy is the exact sum of power x time. */
#include "node.h"

#include <math.h>

#define HEAT_STEP_NS 20000000ll

static int64_t to_ns(double seconds) {
	return llround(seconds * 1e9);
}

double sim_power_w(const struct node *node, uint32_t gpu, const struct sim *sim, int clock) {
	const struct config *c = &node->config;
	double watts, leak = c->static_w[clock] * c->leak_per_k * (sim->temperature_c - c->reference_c);
	if (sim->run.active)
		watts = (node->kernel[sim->run.kernel].power_w[clock] + leak) * sim->run.power_factor;
	else if (sim->owners)
		watts = c->blocking_w[clock] + leak;
	else
		watts = c->idle_w;
	return watts * c->gpu_power[gpu];
}

int sim_clock(const struct node *node, uint32_t gpu, const struct sim *sim) {
	const struct config *c = &node->config;
	int top = sim->high == NO_LOCK ? (int)c->clock_count - 1 : sim->high;
	if (!sim->owners)
		return sim->low == NO_LOCK ? 0 : sim->low;
	/* A limit that somebody lowered always holds; the default one only where the model says so. */
	if (c->enforce_cap || sim->power_limit_w < c->power_limit_w)
		while (top > 0 && sim_power_w(node, gpu, sim, top) > sim->power_limit_w)
			top--;
	return top;
}

static void apply_due_changes(const struct node *node, struct sim *sim) {
	uint32_t due = 0;
	while (due < sim->changes && sim->change[due].t <= sim->t) {
		sim->low = sim->change[due].low;
		sim->high = sim->change[due].high;
		sim->changed = sim->change[due].t;
		sim->resumes = sim->changed + to_ns(node->config.pause_s);
		due++;
	}
	if (!due)
		return;
	sim->changes -= due;
	for (uint32_t i = 0; i < sim->changes; i++)
		sim->change[i] = sim->change[i + due];
}

static int heat_matters(const struct node *node) {
	return node->config.leak_per_k > 0;
}

/* One step of constant power, at most to `until`. */
static void step(const struct node *node, uint32_t gpu, struct sim *sim, int64_t until) {
	const struct config *c = &node->config;
	apply_due_changes(node, sim);
	int clock = sim_clock(node, gpu, sim);
	double watts = sim_power_w(node, gpu, sim, clock), kernel_s = 0;
	int64_t next = until;
	if (sim->changes && sim->change[0].t < next)
		next = sim->change[0].t;
	if (sim->next_tick < next)
		next = sim->next_tick;
	if (heat_matters(node) && sim->t + HEAT_STEP_NS < next)
		next = sim->t + HEAT_STEP_NS;
	int ends = 0, stands = sim->t < sim->resumes;
	if (stands && sim->resumes < next)
		next = sim->resumes;
	if (sim->run.active && !stands) {
		kernel_s = node->kernel[sim->run.kernel].time_s[clock] * sim->run.time_factor;
		int64_t end = sim->t + to_ns((1 - sim->run.progress) * kernel_s);
		if (end <= next) {
			next = end;
			ends = 1;
		}
	}
	double seconds = (double)(next - sim->t) * 1e-9;
	double settled_c = c->ambient_c + c->kelvin_per_w * watts;
	sim->energy_j += watts * seconds;
	sim->temperature_c = settled_c + (sim->temperature_c - settled_c) * exp(-seconds / c->heat_tau_s);
	if (sim->run.active) {
		sim->busy_s += seconds;
		if (!stands)
			sim->run.progress += seconds / kernel_s;
	}
	sim->t = next;
	if (ends) {
		sim->run.active = 0;
		sim->last_end = next;
	}
	if (sim->t == sim->next_tick) {
		sim->counter_j[0] = sim->counter_j[1];
		sim->counter_j[1] = sim->energy_j;
		sim->counter_busy_s[0] = sim->counter_busy_s[1];
		sim->counter_busy_s[1] = sim->busy_s;
		sim->next_tick += to_ns(c->counter_period_s);
	}
}

void sim_advance(const struct node *node, uint32_t gpu, struct sim *sim, int64_t until) {
	while (sim->t < until)
		step(node, gpu, sim, until);
	apply_due_changes(node, sim);
}

int64_t sim_kernel_end(const struct node *node, uint32_t gpu, const struct sim *sim) {
	struct sim ahead = *sim;
	while (ahead.run.active)
		step(node, gpu, &ahead, NEVER);
	return ahead.last_end;
}

void sim_drop_owner(struct sim *sim, uint32_t owner) {
	sim->owners &= ~(1u << owner);
	if (sim->run.active && sim->run.owner == owner) {
		sim->run.active = 0;
		sim->last_end = sim->t;
	}
}
