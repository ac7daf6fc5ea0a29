/* The shared file: mapping it, locking a GPU of it, waiting on a GPU, finding the dead. */
#define _GNU_SOURCE
#include "node.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_STATE "/run/virtual-gpus/state"

int64_t now_ns(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

struct node *node_map(const char *path) {
	struct stat status;
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	struct node *node = MAP_FAILED;
	errno = EINVAL;
	if (!fstat(fd, &status) && (size_t)status.st_size >= sizeof *node)
		node = mmap(NULL, sizeof *node, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (node == MAP_FAILED)
		return NULL;
	if (node->magic == NODE_MAGIC && node->size == sizeof *node)
		return node;
	munmap(node, sizeof *node);
	errno = EINVAL;
	return NULL;
}

static const char *state_path(void) {
	const char *path = getenv("VIRTUAL_GPUS_STATE");
	return path && *path ? path : DEFAULT_STATE;
}

int node_open(void) {
	return open(state_path(), O_RDWR | O_CLOEXEC);
}

struct node *node_attach(void) {
	static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
	static struct node *attached;
	pthread_mutex_lock(&once);
	if (!attached)
		attached = node_map(state_path());
	pthread_mutex_unlock(&once);
	return attached;
}

static void shared_mutex(pthread_mutex_t *mutex) {
	pthread_mutexattr_t attributes;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(mutex, &attributes);
	pthread_mutexattr_destroy(&attributes);
}

void node_initialise(struct node *node) {
	const struct config *c = &node->config;
	int64_t now = now_ns();
	for (uint32_t i = 0; i < c->gpu_count; i++) {
		struct gpu *gpu = &node->gpu[i];
		shared_mutex(&gpu->mutex);
		for (int k = 0; k < MAX_OWNERS; k++)
			shared_mutex(&gpu->owner[k].alive);
		gpu->random = c->seed * 0x9e3779b97f4a7c15ull + i + 1;
		gpu->persistence = 1;
		gpu->mig = gpu->mig_pending = c->mig[i];
		gpu->sim[0] = (struct sim){
		    .t = now,
		    .next_tick = now + llround(c->counter_period_s * 1e9 * (0.5 + 0.5 * gpu_random(gpu)) + 1),
		    .temperature_c = c->ambient_c + c->kelvin_per_w * c->idle_w,
		    .low = NO_LOCK,
		    .high = NO_LOCK,
		    .power_limit_w = c->power_limit_w,
		    .last_end = now,
		};
	}
	node->size = sizeof *node;
	atomic_thread_fence(memory_order_release);
	node->magic = NODE_MAGIC;
}

static int parse_uuid(const char *text, uint8_t uuid[16]) {
	int n = 0;
	for (const char *p = text; *p; p++) {
		if (*p == '-')
			continue;
		unsigned byte;
		int used;
		if (n == 16 || sscanf(p, "%2x%n", &byte, &used) != 1 || used != 2)
			return 0;
		uuid[n++] = (uint8_t)byte;
		p++;
	}
	return n == 16;
}

/* Which GPUs this process may see, in the order that the container's runtime was asked for. */
int node_visible(const struct node *node, uint32_t index[MAX_GPUS]) {
	const struct config *c = &node->config;
	const char *visible = getenv("NVIDIA_VISIBLE_DEVICES");
	int n = 0;
	if (!visible || !*visible || !strcmp(visible, "all")) {
		for (; n < (int)c->gpu_count; n++)
			index[n] = (uint32_t)n;
		return n;
	}
	char list[MAX_GPUS * 48], *rest = list, *item;
	snprintf(list, sizeof list, "%s", visible);
	while ((item = strsep(&rest, ",")) && n < MAX_GPUS) {
		uint8_t uuid[16];
		char *end;
		unsigned long number = strtoul(item, &end, 10);
		int named = !strncasecmp(item, "GPU-", 4) && parse_uuid(item + 4, uuid);
		for (uint32_t i = 0; i < c->gpu_count; i++)
			if (named ? !memcmp(uuid, c->uuid[i], 16) : (*item && !*end && number == i))
				index[n++] = i;
	}
	return n;
}

static void lock_robust(pthread_mutex_t *mutex) {
	if (pthread_mutex_lock(mutex) == EOWNERDEAD)
		pthread_mutex_consistent(mutex);
}

static int is_alive(struct owner *owner) {
	int held = pthread_mutex_trylock(&owner->alive);
	if (held == EBUSY)
		return 1;
	if (held == EOWNERDEAD)
		pthread_mutex_consistent(&owner->alive);
	if (held == 0 || held == EOWNERDEAD)
		pthread_mutex_unlock(&owner->alive);
	return 0;
}

/* The dead draw nothing after the last moment at which anybody saw them alive. */
static void reap_owners(struct node *node, uint32_t index, struct sim *sim, int64_t now) {
	struct gpu *gpu = &node->gpu[index];
	int dead = 0;
	for (uint32_t i = 0; i < MAX_OWNERS; i++) {
		struct owner *owner = &gpu->owner[i];
		if (!atomic_load(&owner->used))
			continue;
		if (is_alive(owner)) {
			owner->seen = now;
			continue;
		}
		sim_advance(node, index, sim, owner->seen);
		sim_drop_owner(sim, i);
		atomic_store(&owner->used, 0);
		dead = 1;
	}
	if (dead) {
		gpu_commit(gpu, sim);
		gpu_notify(gpu);
	}
}

void gpu_lock(struct node *node, uint32_t index, struct sim *sim) {
	struct gpu *gpu = &node->gpu[index];
	lock_robust(&gpu->mutex);
	int64_t now = now_ns();
	*sim = gpu->sim[atomic_load(&gpu->current)];
	reap_owners(node, index, sim, now);
	if (sim->t < now - BACKDATE_NS) {
		sim_advance(node, index, sim, now - BACKDATE_NS);
		gpu_commit(gpu, sim);
	}
}

void gpu_commit(struct gpu *gpu, const struct sim *sim) {
	unsigned other = !atomic_load(&gpu->current);
	if (sim->run.sequence && !sim->run.active) {
		struct owner *owner = &gpu->owner[sim->run.owner];
		if (owner->last_sequence < sim->run.sequence) {
			owner->last_sequence = sim->run.sequence;
			owner->last_end = sim->last_end;
		}
	}
	gpu->sim[other] = *sim;
	atomic_store(&gpu->current, other);
}

void gpu_unlock(struct gpu *gpu) {
	pthread_mutex_unlock(&gpu->mutex);
}

void gpu_notify(struct gpu *gpu) {
	atomic_fetch_add(&gpu->epoch, 1);
	syscall(SYS_futex, &gpu->epoch, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void gpu_wait(struct gpu *gpu, uint32_t epoch, int64_t until) {
	struct timespec deadline = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
	syscall(SYS_futex, &gpu->epoch, FUTEX_WAIT_BITSET, epoch, &deadline, NULL, FUTEX_BITSET_MATCH_ANY);
}

void gpu_hang(struct gpu *gpu, uint32_t call) {
	for (;;) {
		uint32_t epoch = atomic_load(&gpu->epoch);
		if (!(atomic_load(&gpu->hang) & call))
			return;
		gpu_wait(gpu, epoch, now_ns() + 1000000000ll);
	}
}

/* splitmix64 */
double gpu_random(struct gpu *gpu) {
	uint64_t z = (gpu->random += 0x9e3779b97f4a7c15ull);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	z ^= z >> 31;
	return (double)(int64_t)z * 0x1p-63;
}

double gpu_gaussian(struct gpu *gpu) {
	double u = (gpu_random(gpu) + 1) / 2, v = gpu_random(gpu) * 3.14159265358979323846;
	double value = sqrt(-2 * log(u > 0 ? u : 0x1p-60)) * cos(v);
	return value > 3 ? 3 : value < -3 ? -3 : value;
}
