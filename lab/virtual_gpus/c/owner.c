/* This process as an owner of GPUs. One keeper thread holds the robust mutexes that say "alive": a mutex must be
 * taken and left by the same thread, and threads of the application come and go. */
#define _GNU_SOURCE
#include "stream.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#define CONTEXT_BYTES (420ull << 20)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t asked = PTHREAD_COND_INITIALIZER, answered = PTHREAD_COND_INITIALIZER;
static struct {
	int pending, release, ok;
	struct node *node;
	uint32_t gpu, owner;
} request;

static int take(struct node *node, uint32_t index, uint32_t *slot) {
	struct gpu *gpu = &node->gpu[index];
	struct sim sim;
	int taken = 0;
	gpu_lock(node, index, &sim);
	int64_t now = now_ns();
	for (uint32_t i = 0; i < MAX_OWNERS && !taken; i++) {
		struct owner *owner = &gpu->owner[i];
		if (atomic_load(&owner->used) || pthread_mutex_lock(&owner->alive))
			continue;
		owner->pid = (uint32_t)getpid();
		owner->memory_bytes = CONTEXT_BYTES;
		owner->seen = now;
		owner->last_sequence = gpu->sequence;
		atomic_store(&owner->used, 1);
		sim_advance(node, index, &sim, now);
		sim.owners |= 1u << i;
		*slot = i;
		taken = 1;
	}
	if (taken)
		gpu_commit(gpu, &sim);
	gpu_unlock(gpu);
	return taken;
}

static void leave(struct node *node, uint32_t index, uint32_t slot) {
	struct gpu *gpu = &node->gpu[index];
	struct sim sim;
	gpu_lock(node, index, &sim);
	sim_advance(node, index, &sim, now_ns());
	sim_drop_owner(&sim, slot);
	gpu_commit(gpu, &sim);
	atomic_store(&gpu->owner[slot].used, 0);
	pthread_mutex_unlock(&gpu->owner[slot].alive);
	gpu_notify(gpu);
	gpu_unlock(gpu);
}

static void *keep(void *unused) {
	(void)unused;
	prctl(PR_SET_NAME, "vgpu-keeper");
	pthread_mutex_lock(&lock);
	for (;;) {
		while (!request.pending)
			pthread_cond_wait(&asked, &lock);
		request.ok = 1;
		if (request.release)
			leave(request.node, request.gpu, request.owner);
		else
			request.ok = take(request.node, request.gpu, &request.owner);
		request.pending = 0;
		pthread_cond_broadcast(&answered);
	}
	return NULL;
}

/* Callers hold process_lock, so there is one request at a time. */
static int ask(struct node *node, uint32_t gpu, uint32_t *owner, int release) {
	static int running;
	pthread_mutex_lock(&lock);
	if (!running) {
		pthread_t thread;
		sigset_t all, before;
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &before);
		running = !pthread_create(&thread, NULL, keep, NULL);
		pthread_sigmask(SIG_SETMASK, &before, NULL);
	}
	request.ok = 0;
	if (running) {
		request.node = node;
		request.gpu = gpu;
		request.owner = *owner;
		request.release = release;
		request.pending = 1;
		pthread_cond_signal(&asked);
		while (request.pending)
			pthread_cond_wait(&answered, &lock);
		*owner = request.owner;
	}
	pthread_mutex_unlock(&lock);
	return request.ok;
}

int owner_acquire(struct node *node, uint32_t gpu, uint32_t *owner) {
	*owner = 0;
	return ask(node, gpu, owner, 0);
}

void owner_release(struct node *node, uint32_t gpu, uint32_t owner) {
	ask(node, gpu, &owner, 1);
}
