/* Virtual libcuda.so.1: the driver API's calls about devices, contexts, streams, events and host memory. */
#define _GNU_SOURCE
#include "cuda.h"

#include "stream.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DRIVER_VERSION 13000
#define CONTEXT_STACK 16
#define MAX_RANGES 256

static struct node *node;
static pid_t initialised_in; /* a forked child must not use its parent's streams */
static uint32_t visible[MAX_GPUS];
static int visible_count;
static CUcontext contexts;
static CUcontext primary[MAX_GPUS];
static CUevent events;
static struct { char *start; size_t size; } range[MAX_RANGES];
static _Thread_local CUcontext stack[CONTEXT_STACK];
static _Thread_local int depth;

struct node *process_node(void) {
	return node;
}

static int ready(void) {
	return node && getpid() == initialised_in;
}

#define NEED(condition, error) \
	do {                   \
		if (!(condition)) \
			return (error); \
	} while (0)

#define LOCKED_RETURN(value)                          \
	do {                                          \
		CUresult result_ = (value);           \
		pthread_mutex_unlock(&process_lock);  \
		return result_;                       \
	} while (0)

static const struct { CUresult code; const char *name, *text; } errors[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "part or all of the requested memory range is already mapped"},
    {CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "pointer does not correspond to a registered memory region"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CUDA_ERROR_UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

static CUresult describe(CUresult error, const char **text, int name) {
	*text = NULL;
	for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
		if (errors[i].code == error)
			*text = name ? errors[i].name : errors[i].text;
	return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorName(CUresult error, const char **name) {
	return describe(error, name, 1);
}

CUresult cuGetErrorString(CUresult error, const char **text) {
	return describe(error, text, 0);
}

/* Devices */

CUresult cuInit(unsigned flags) {
	NEED(!flags, CUDA_ERROR_INVALID_VALUE);
	pthread_mutex_lock(&process_lock);
	if (!node && (node = node_attach())) {
		initialised_in = getpid();
		visible_count = node_visible(node, visible);
	}
	LOCKED_RETURN(!node || !visible_count ? CUDA_ERROR_NO_DEVICE : ready() ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED);
}

CUresult cuDriverGetVersion(int *version) {
	*version = DRIVER_VERSION;
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
	NEED(ready(), CUDA_ERROR_NOT_INITIALIZED);
	*count = visible_count;
	return CUDA_SUCCESS;
}

static CUresult check_device(CUdevice device) {
	NEED(ready(), CUDA_ERROR_NOT_INITIALIZED);
	return device >= 0 && device < visible_count ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
	*device = ordinal;
	return check_device(ordinal);
}

CUresult cuDeviceGetName(char *name, int size, CUdevice device) {
	CUresult status = check_device(device);
	NEED(!status && size > 0, status ? status : CUDA_ERROR_INVALID_VALUE);
	name[0] = '\0';
	strncat(name, node->config.gpu_name, (size_t)size - 1);
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) {
	CUresult status = check_device(device);
	if (!status)
		memcpy(uuid->bytes, node->config.uuid[visible[device]], sizeof uuid->bytes);
	return status;
}

CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device) {
	return cuDeviceGetUuid_v2(uuid, device);
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device) {
	*bytes = 80ull << 30;
	return check_device(device);
}

CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
	CUresult status = check_device(device);
	NEED(!status, status);
	NEED(attribute > 0 && attribute < CU_DEVICE_ATTRIBUTE_MAX, CUDA_ERROR_INVALID_VALUE);
	const struct config *c = &node->config;
	switch (attribute) {
	case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
	case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
	case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: *value = (int)(c->clock_min_mhz + c->clock_step_mhz * (c->clock_count - 1)) * 1000; break;
	case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 108; break;
	case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID: *value = 0x10 + (int)visible[device]; break;
	case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: *value = (int)c->memory_clock_mhz * 1000; break;
	case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 8; break;
	case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:
	case CU_DEVICE_ATTRIBUTE_ECC_ENABLED:
	case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
	case CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM:
	case CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_MEM_OPS_V1:
	case CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED: *value = 1; break;
	default: *value = 0; /* whatever else: not capable */
	}
	return CUDA_SUCCESS;
}

/* NVIDIA's CUDA runtime (and so torch's own CUDA support) finds the driver through cuGetProcAddress. It needs more
 * than there is here, device memory for one; so whoever asks that way hears at cuInit that there is no device. */
static CUresult init_for_runtime(unsigned flags) {
	(void)flags;
	return CUDA_ERROR_NO_DEVICE;
}

CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *result) {
	(void)version;
	(void)flags;
	void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
	*function = strcmp(symbol, "cuInit") ? dlsym(driver, symbol) : (void *)init_for_runtime;
	if (result)
		*result = *function ? 0 : 1;
	return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

/* Contexts */

static CUresult open_context(CUdevice device, int is_primary, CUcontext *result) {
	CUcontext context = calloc(1, sizeof *context);
	NEED(context, CUDA_ERROR_OUT_OF_MEMORY);
	*context = (struct CUctx_st){.device = (uint32_t)device, .gpu = visible[device], .primary = is_primary, .references = 1};
	if (node->gpu[context->gpu].lost || !owner_acquire(node, context->gpu, &context->owner)) {
		free(context);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	context->legacy = stream_open(context, CU_STREAM_DEFAULT);
	if (!context->legacy) {
		owner_release(node, context->gpu, context->owner);
		free(context);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	context->next = contexts;
	*result = contexts = context;
	return CUDA_SUCCESS;
}

static CUresult drain_context(CUcontext context) {
	stream_drain(context->legacy);
	for (CUstream stream = context->streams; stream;) {
		int pending = stream->completed < stream->enqueued;
		if (pending)
			stream_drain(stream);
		stream = pending ? context->streams : stream->next; /* the list may have changed meanwhile */
	}
	return context->error;
}

static int is_context(CUcontext wanted) {
	for (CUcontext context = contexts; context; context = context->next)
		if (context == wanted)
			return 1;
	return 0;
}

static void close_context(CUcontext context) {
	drain_context(context);
	stream_close(context->legacy);
	while (context->streams) {
		CUstream stream = context->streams;
		context->streams = stream->next;
		stream_close(stream);
	}
	for (CUcontext *p = &contexts; *p; p = &(*p)->next)
		if (*p == context) {
			*p = context->next;
			break;
		}
	owner_release(node, context->gpu, context->owner);
	/* The struct itself stays: a stream's thread may still look at it, and contexts are few. */
}

CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device) {
	(void)flags;
	CUresult status = check_device(device);
	NEED(!status, status);
	NEED(depth < CONTEXT_STACK, CUDA_ERROR_INVALID_VALUE);
	pthread_mutex_lock(&process_lock);
	status = open_context(device, 0, context);
	if (!status)
		stack[depth++] = *context;
	LOCKED_RETURN(status);
}

CUresult cuCtxDestroy_v2(CUcontext context) {
	NEED(ready(), CUDA_ERROR_NOT_INITIALIZED);
	pthread_mutex_lock(&process_lock);
	if (!is_context(context) || context->primary)
		LOCKED_RETURN(CUDA_ERROR_INVALID_CONTEXT);
	close_context(context);
	if (depth && stack[depth - 1] == context)
		depth--;
	LOCKED_RETURN(CUDA_SUCCESS);
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
	CUresult status = check_device(device);
	NEED(!status, status);
	pthread_mutex_lock(&process_lock);
	if (primary[device])
		primary[device]->references++;
	else
		status = open_context(device, 1, &primary[device]);
	*context = primary[device];
	LOCKED_RETURN(status);
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
	CUresult status = check_device(device);
	NEED(!status, status);
	pthread_mutex_lock(&process_lock);
	CUcontext context = primary[device];
	if (!context)
		LOCKED_RETURN(CUDA_ERROR_INVALID_CONTEXT);
	if (!--context->references) {
		primary[device] = NULL;
		close_context(context);
	}
	LOCKED_RETURN(CUDA_SUCCESS);
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
	CUresult status = check_device(device);
	NEED(!status, status);
	*flags = 0;
	*active = primary[device] != NULL;
	return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *context) {
	NEED(ready(), CUDA_ERROR_NOT_INITIALIZED);
	*context = depth ? stack[depth - 1] : NULL;
	return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) {
	NEED(ready(), CUDA_ERROR_NOT_INITIALIZED);
	if (!context) {
		depth -= depth > 0;
		return CUDA_SUCCESS;
	}
	pthread_mutex_lock(&process_lock);
	if (!is_context(context))
		LOCKED_RETURN(CUDA_ERROR_INVALID_CONTEXT);
	depth += !depth;
	stack[depth - 1] = context;
	LOCKED_RETURN(CUDA_SUCCESS);
}

CUresult cuCtxPushCurrent_v2(CUcontext context) {
	NEED(ready(), CUDA_ERROR_NOT_INITIALIZED);
	NEED(depth < CONTEXT_STACK, CUDA_ERROR_INVALID_VALUE);
	pthread_mutex_lock(&process_lock);
	if (!is_context(context))
		LOCKED_RETURN(CUDA_ERROR_INVALID_CONTEXT);
	stack[depth++] = context;
	LOCKED_RETURN(CUDA_SUCCESS);
}

CUresult cuCtxPopCurrent_v2(CUcontext *context) {
	NEED(ready(), CUDA_ERROR_NOT_INITIALIZED);
	NEED(depth, CUDA_ERROR_INVALID_CONTEXT);
	depth--;
	if (context)
		*context = stack[depth];
	return CUDA_SUCCESS;
}

/* The current context, with process_lock held; else the error, without. */
static CUresult enter(CUcontext *context) {
	NEED(ready(), CUDA_ERROR_NOT_INITIALIZED);
	pthread_mutex_lock(&process_lock);
	*context = depth ? stack[depth - 1] : NULL;
	if (!*context || !is_context(*context))
		LOCKED_RETURN(CUDA_ERROR_INVALID_CONTEXT);
	return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *device) {
	CUcontext context;
	CUresult status = enter(&context);
	NEED(!status, status);
	*device = (CUdevice)context->device;
	LOCKED_RETURN(CUDA_SUCCESS);
}

CUresult cuCtxSynchronize(void) {
	CUcontext context;
	CUresult status = enter(&context);
	NEED(!status, status);
	LOCKED_RETURN(drain_context(context));
}

/* Streams */

static int is_default(CUstream stream) {
	return !stream || stream == CU_STREAM_LEGACY;
}

/* Resolve a handle, with process_lock held afterwards; else the error, without. */
static CUresult enter_stream(CUstream *stream) {
	CUcontext context;
	if (is_default(*stream)) {
		CUresult status = enter(&context);
		NEED(!status, status);
		*stream = context->legacy;
	} else {
		NEED(ready(), CUDA_ERROR_NOT_INITIALIZED);
		pthread_mutex_lock(&process_lock);
		CUstream known = NULL;
		for (context = contexts; context && !known; context = context->next)
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
	CUresult status = enter(&context);
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
	NEED(ready(), CUDA_ERROR_NOT_INITIALIZED);
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
	CUresult status = enter(&context);
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
	CUresult status = enter(&context);
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
	CUresult status = enter(&context);
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
	CUresult status = enter(&context);
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
	NEED(ready(), CUDA_ERROR_NOT_INITIALIZED);
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
