/* A stream: a queue and a thread that does its operations in order, whatever the host does meanwhile.
 *
 * The stream keeps its own time, the planned end of its latest operation. What was queued ahead starts at that
 * moment and not when the thread happens to wake, so a busy machine does not lengthen queued work. */
#define _GNU_SOURCE
#include "stream.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>

#define QUEUE_DEPTH 1024 /* then the host waits, as with CUDA */
#define TIMER_SLACK_NS 1000

pthread_mutex_t process_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t process_progress = PTHREAD_COND_INITIALIZER;

void event_release(CUevent event) {
	if (!--event->references)
		free(event);
}

void stream_release(CUstream stream) {
	if (--stream->references)
		return;
	pthread_cond_destroy(&stream->work);
	free(stream);
}

static int64_t later(int64_t a, int64_t b) {
	return a > b ? a : b;
}

/* Do one operation. Called with process_lock held; gives it up while it waits. */
static void perform(CUstream stream, struct operation *op) {
	CUcontext context = stream->context;
	int64_t start = later(stream->t, op->ready), end = start;
	switch (op->kind) {
	case RUN_KERNEL:
		if (context->error)
			break;
		pthread_mutex_unlock(&process_lock);
		int ok = execute_kernel(process_node(), context->gpu, context->owner, op->kernel, start, &end);
		pthread_mutex_lock(&process_lock);
		if (!ok)
			context->error = CUDA_ERROR_UNKNOWN;
		break;
	case WRITE_32:
		if (!context->error)
			__atomic_store_n(op->address, op->value, __ATOMIC_RELEASE);
		break;
	case RECORD_EVENT:
		op->event->t = start;
		op->event->done = op->until;
		event_release(op->event);
		break;
	case WAIT_EVENT:
		while (op->event->done < op->until)
			pthread_cond_wait(&process_progress, &process_lock);
		end = later(start, op->event->t);
		event_release(op->event);
		break;
	case WAIT_STREAM:
		while (op->stream->completed < op->until)
			pthread_cond_wait(&process_progress, &process_lock);
		end = later(start, op->stream->t);
		stream_release(op->stream);
		break;
	case CALL_HOST:
		pthread_mutex_unlock(&process_lock);
		op->function(op->data);
		pthread_mutex_lock(&process_lock);
		end = now_ns();
		break;
	}
	stream->t = end;
}

static void *serve(void *argument) {
	CUstream stream = argument;
	prctl(PR_SET_NAME, "vgpu-stream");
	prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS);
	pthread_mutex_lock(&process_lock);
	for (;;) {
		while (!stream->first && !stream->closing)
			pthread_cond_wait(&stream->work, &process_lock);
		struct operation *op = stream->first;
		if (!op)
			break;
		stream->first = op->next;
		perform(stream, op);
		free(op);
		stream->completed++;
		pthread_cond_broadcast(&process_progress);
	}
	stream_release(stream);
	pthread_mutex_unlock(&process_lock);
	return NULL;
}

CUstream stream_open(CUcontext context, unsigned flags) {
	CUstream stream = calloc(1, sizeof *stream);
	pthread_t thread;
	sigset_t all, before;
	if (!stream)
		return NULL;
	*stream = (struct CUstream_st){.context = context, .flags = flags, .references = 2, .t = now_ns()};
	pthread_cond_init(&stream->work, NULL);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* signals belong to the application's threads */
	int failed = pthread_create(&thread, NULL, serve, stream);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (failed) {
		free(stream);
		return NULL;
	}
	pthread_detach(thread);
	return stream;
}

void stream_close(CUstream stream) {
	stream->closing = 1;
	pthread_cond_signal(&stream->work);
	stream_release(stream);
}

static void push(CUstream stream, struct operation operation) {
	struct operation *op = malloc(sizeof *op);
	if (!op)
		abort();
	*op = operation;
	op->ready = now_ns();
	op->next = NULL;
	if (stream->first)
		stream->last->next = op;
	else
		stream->first = op;
	stream->last = op;
	stream->enqueued++;
	pthread_cond_signal(&stream->work);
}

static void wait_for(CUstream stream, CUstream other) {
	if (!other || other == stream || other->completed >= other->enqueued)
		return;
	other->references++;
	push(stream, (struct operation){.kind = WAIT_STREAM, .stream = other, .until = other->enqueued});
}

/* The legacy default stream and the blocking streams of its context wait for one another. */
void stream_enqueue(CUstream stream, struct operation operation) {
	CUcontext context = stream->context;
	while (stream->enqueued - stream->completed >= QUEUE_DEPTH)
		pthread_cond_wait(&process_progress, &process_lock);
	if (stream == context->legacy) {
		for (CUstream other = context->streams; other; other = other->next)
			if (!(other->flags & CU_STREAM_NON_BLOCKING))
				wait_for(stream, other);
	} else if (!(stream->flags & CU_STREAM_NON_BLOCKING))
		wait_for(stream, context->legacy);
	push(stream, operation);
}

CUresult stream_drain(CUstream stream) {
	uint64_t until = stream->enqueued;
	stream->references++;
	while (stream->completed < until)
		pthread_cond_wait(&process_progress, &process_lock);
	CUresult error = stream->context->error;
	stream_release(stream);
	return error;
}
