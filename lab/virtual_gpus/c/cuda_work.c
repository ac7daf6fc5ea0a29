/* Virtual libcuda.so.1: the driver API's calls about streams, launches, host memory and events. */
#include "cuda.h"

#include "stream.h"

#include <math.h>
#include <stdlib.h>

#define MAX_RANGES 256

static CUevent events;
static struct { char *start; size_t size; } range[MAX_RANGES];

/* Streams */

static int is_default(CUstream stream) {
	return !stream || stream == CU_STREAM_LEGACY;
}

/* Resolve a handle, with process_lock held afterwards; else the error, without. */
static CUresult enter_stream(CUstream *stream) {
	CUcontext context;
	if (is_default(*stream)) {
		CUresult status = enter_context(&context);
		NEED(!status, status);
		*stream = context->legacy;
	} else {
		NEED(process_ready(), CUDA_ERROR_NOT_INITIALIZED);
		pthread_mutex_lock(&process_lock);
		CUstream known = NULL;
		for (context = process_contexts; context && !known; context = context->next)
			for (known = context->streams; known && known != *stream;)
				known = known->next;
		if (!known)
			LOCKED_RETURN(CUDA_ERROR_INVALID_HANDLE);
	}
	if ((*stream)->context->error)
		LOCKED_RETURN((*stream)->context->error);
	return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream *stream, unsigned flags) {
	CUcontext context;
	NEED(flags <= CU_STREAM_NON_BLOCKING, CUDA_ERROR_INVALID_VALUE);
	CUresult status = enter_context(&context);
	NEED(!status, status);
	*stream = stream_open(context, flags);
	if (!*stream)
		LOCKED_RETURN(CUDA_ERROR_OUT_OF_MEMORY);
	(*stream)->next = context->streams;
	context->streams = *stream;
	LOCKED_RETURN(CUDA_SUCCESS);
}

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority) {
	(void)priority;
	return cuStreamCreate(stream, flags);
}

CUresult cuStreamDestroy_v2(CUstream stream) {
	NEED(!is_default(stream), CUDA_ERROR_INVALID_HANDLE);
	CUresult status = enter_stream(&stream);
	NEED(!status, status);
	for (CUstream *p = &stream->context->streams; *p; p = &(*p)->next)
		if (*p == stream) {
			*p = stream->next;
			break;
		}
	stream_close(stream);
	LOCKED_RETURN(CUDA_SUCCESS);
}

CUresult cuStreamGetCtx(CUstream stream, CUcontext *context) {
	CUresult status = enter_stream(&stream);
	NEED(!status, status);
	*context = stream->context;
	LOCKED_RETURN(CUDA_SUCCESS);
}

CUresult cuStreamSynchronize(CUstream stream) {
	CUresult status = enter_stream(&stream);
	NEED(!status, status);
	LOCKED_RETURN(stream_drain(stream));
}

CUresult cuStreamQuery(CUstream stream) {
	CUresult status = enter_stream(&stream);
	NEED(!status, status);
	LOCKED_RETURN(stream->completed < stream->enqueued ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS);
}

static CUresult enqueue(CUstream stream, struct operation operation) {
	CUresult status = enter_stream(&stream);
	NEED(!status, status);
	stream_enqueue(stream, operation);
	LOCKED_RETURN(CUDA_SUCCESS);
}

CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void *data) {
	NEED(function, CUDA_ERROR_INVALID_VALUE);
	return enqueue(stream, (struct operation){.kind = CALL_HOST, .function = function, .data = data});
}

/* Not of CUDA: run the kernel whose name has this CRC-32. */
CUresult virtualGpuLaunch(CUstream stream, uint32_t kernel) {
	NEED(process_ready(), CUDA_ERROR_NOT_INITIALIZED);
	const struct node *node = process_node();
	for (uint32_t i = 0; i < node->config.kernel_count; i++)
		if (node->kernel[i].id == kernel)
			return enqueue(stream, (struct operation){.kind = RUN_KERNEL, .kernel = i});
	return CUDA_ERROR_NOT_FOUND;
}

/* Host memory: a registered page is the device's too, at the same address. */

static int find_range(const char *address, size_t size) {
	for (int i = 0; i < MAX_RANGES; i++)
		if (range[i].start && address < range[i].start + range[i].size && address + size > range[i].start)
			return i;
	return -1;
}

CUresult cuMemHostRegister_v2(void *address, size_t size, unsigned flags) {
	(void)flags;
	CUcontext context;
	NEED(address && size, CUDA_ERROR_INVALID_VALUE);
	CUresult status = enter_context(&context);
	NEED(!status, status);
	if (find_range(address, size) >= 0)
		LOCKED_RETURN(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
	for (int i = 0; i < MAX_RANGES; i++)
		if (!range[i].start) {
			range[i].start = address;
			range[i].size = size;
			LOCKED_RETURN(CUDA_SUCCESS);
		}
	LOCKED_RETURN(CUDA_ERROR_OUT_OF_MEMORY);
}

CUresult cuMemHostUnregister(void *address) {
	CUcontext context;
	CUresult status = enter_context(&context);
	NEED(!status, status);
	int i = find_range(address, 1);
	if (i < 0 || range[i].start != (char *)address)
		LOCKED_RETURN(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
	drain_context(context); /* nothing queued may write there afterwards */
	range[i].start = NULL;
	LOCKED_RETURN(CUDA_SUCCESS);
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *pointer, void *address, unsigned flags) {
	CUcontext context;
	NEED(!flags, CUDA_ERROR_INVALID_VALUE);
	CUresult status = enter_context(&context);
	NEED(!status, status);
	*pointer = (CUdeviceptr)(uintptr_t)address;
	LOCKED_RETURN(find_range(address, 1) < 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS);
}

CUresult cuStreamWriteValue32_v2(CUstream stream, CUdeviceptr address, uint32_t value, unsigned flags) {
	NEED(flags <= 1 && address % 4 == 0, CUDA_ERROR_INVALID_VALUE);
	CUresult status = enter_stream(&stream);
	NEED(!status, status);
	char *target = (char *)(uintptr_t)address;
	int i = find_range(target, 4);
	if (i < 0 || target < range[i].start || target + 4 > range[i].start + range[i].size)
		LOCKED_RETURN(CUDA_ERROR_INVALID_VALUE);
	stream_enqueue(stream, (struct operation){.kind = WRITE_32, .address = (uint32_t *)target, .value = value});
	LOCKED_RETURN(CUDA_SUCCESS);
}

/* Events */

static int is_event(CUevent wanted) {
	for (CUevent event = events; event; event = event->next)
		if (event == wanted)
			return 1;
	return 0;
}

CUresult cuEventCreate(CUevent *event, unsigned flags) {
	CUcontext context;
	CUresult status = enter_context(&context);
	NEED(!status, status);
	*event = calloc(1, sizeof **event);
	if (!*event)
		LOCKED_RETURN(CUDA_ERROR_OUT_OF_MEMORY);
	**event = (struct CUevent_st){.context = context, .flags = flags, .references = 1, .next = events};
	events = *event;
	LOCKED_RETURN(CUDA_SUCCESS);
}

/* With process_lock held afterwards; else the error, without. */
static CUresult enter_event(CUevent event) {
	NEED(process_ready(), CUDA_ERROR_NOT_INITIALIZED);
	pthread_mutex_lock(&process_lock);
	if (!is_event(event))
		LOCKED_RETURN(CUDA_ERROR_INVALID_HANDLE);
	return CUDA_SUCCESS;
}

CUresult cuEventDestroy_v2(CUevent event) {
	CUresult status = enter_event(event);
	NEED(!status, status);
	for (CUevent *p = &events; *p; p = &(*p)->next)
		if (*p == event) {
			*p = event->next;
			break;
		}
	event_release(event);
	LOCKED_RETURN(CUDA_SUCCESS);
}

static CUresult enqueue_event(CUevent event, CUstream stream, enum operation_kind kind) {
	CUresult status = enter_stream(&stream);
	NEED(!status, status);
	if (!is_event(event))
		LOCKED_RETURN(CUDA_ERROR_INVALID_HANDLE);
	event->generation += kind == RECORD_EVENT;
	event->references++;
	stream_enqueue(stream, (struct operation){.kind = kind, .event = event, .until = event->generation});
	LOCKED_RETURN(CUDA_SUCCESS);
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
	return enqueue_event(event, stream, RECORD_EVENT);
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) {
	(void)flags;
	return enqueue_event(event, stream, WAIT_EVENT);
}

CUresult cuEventQuery(CUevent event) {
	CUresult status = enter_event(event);
	NEED(!status, status);
	CUresult error = event->context->error;
	LOCKED_RETURN(error ? error : event->done < event->generation ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS);
}

CUresult cuEventSynchronize(CUevent event) {
	CUresult status = enter_event(event);
	NEED(!status, status);
	uint64_t until = event->generation;
	event->references++;
	while (event->done < until)
		pthread_cond_wait(&process_progress, &process_lock);
	CUresult error = event->context->error;
	event_release(event);
	LOCKED_RETURN(error);
}

/* Milliseconds between two moments of stream time, in steps of half a microsecond. */
CUresult cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) {
	CUresult status = enter_event(start);
	NEED(!status, status);
	if (!is_event(end) || (start->flags | end->flags) & CU_EVENT_DISABLE_TIMING || !start->generation || !end->generation)
		LOCKED_RETURN(CUDA_ERROR_INVALID_HANDLE);
	if (start->done < start->generation || end->done < end->generation)
		LOCKED_RETURN(CUDA_ERROR_NOT_READY);
	*milliseconds = (float)((double)llround((double)(end->t - start->t) / 500) * 0.0005);
	LOCKED_RETURN(CUDA_SUCCESS);
}

CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent start, CUevent end) {
	return cuEventElapsedTime(milliseconds, start, end);
}
