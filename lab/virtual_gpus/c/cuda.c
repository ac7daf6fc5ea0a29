/* Virtual libcuda.so.1: the driver API's calls about devices and contexts. */
#define _GNU_SOURCE
#include "cuda.h"

#include "stream.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DRIVER_VERSION 13000
#define CONTEXT_STACK 16

static struct node *node;
static pid_t initialised_in; /* a forked child must not use its parent's streams */
static uint32_t visible[MAX_GPUS];
static int visible_count;
CUcontext process_contexts;
static CUcontext primary[MAX_GPUS];
static _Thread_local CUcontext stack[CONTEXT_STACK];
static _Thread_local int depth;

struct node *process_node(void) {
	return node;
}

int process_ready(void) {
	return node && getpid() == initialised_in;
}

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
	LOCKED_RETURN(!node || !visible_count ? CUDA_ERROR_NO_DEVICE : process_ready() ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED);
}

CUresult cuDriverGetVersion(int *version) {
	*version = DRIVER_VERSION;
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
	NEED(process_ready(), CUDA_ERROR_NOT_INITIALIZED);
	*count = visible_count;
	return CUDA_SUCCESS;
}

static CUresult check_device(CUdevice device) {
	NEED(process_ready(), CUDA_ERROR_NOT_INITIALIZED);
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
	context->next = process_contexts;
	*result = process_contexts = context;
	return CUDA_SUCCESS;
}

CUresult drain_context(CUcontext context) {
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
	for (CUcontext context = process_contexts; context; context = context->next)
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
	for (CUcontext *p = &process_contexts; *p; p = &(*p)->next)
		if (*p == context) {
			*p = context->next;
			break;
		}
	owner_release(node, context->gpu, context->owner);
	/* The struct itself stays: a stream's thread may still look at it, and process_contexts are few. */
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
	NEED(process_ready(), CUDA_ERROR_NOT_INITIALIZED);
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
	NEED(process_ready(), CUDA_ERROR_NOT_INITIALIZED);
	*context = depth ? stack[depth - 1] : NULL;
	return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) {
	NEED(process_ready(), CUDA_ERROR_NOT_INITIALIZED);
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
	NEED(process_ready(), CUDA_ERROR_NOT_INITIALIZED);
	NEED(depth < CONTEXT_STACK, CUDA_ERROR_INVALID_VALUE);
	pthread_mutex_lock(&process_lock);
	if (!is_context(context))
		LOCKED_RETURN(CUDA_ERROR_INVALID_CONTEXT);
	stack[depth++] = context;
	LOCKED_RETURN(CUDA_SUCCESS);
}

CUresult cuCtxPopCurrent_v2(CUcontext *context) {
	NEED(process_ready(), CUDA_ERROR_NOT_INITIALIZED);
	NEED(depth, CUDA_ERROR_INVALID_CONTEXT);
	depth--;
	if (context)
		*context = stack[depth];
	return CUDA_SUCCESS;
}

CUresult enter_context(CUcontext *context) {
	NEED(process_ready(), CUDA_ERROR_NOT_INITIALIZED);
	pthread_mutex_lock(&process_lock);
	*context = depth ? stack[depth - 1] : NULL;
	if (!*context || !is_context(*context))
		LOCKED_RETURN(CUDA_ERROR_INVALID_CONTEXT);
	return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *device) {
	CUcontext context;
	CUresult status = enter_context(&context);
	NEED(!status, status);
	*device = (CUdevice)context->device;
	LOCKED_RETURN(CUDA_SUCCESS);
}

CUresult cuCtxSynchronize(void) {
	CUcontext context;
	CUresult status = enter_context(&context);
	NEED(!status, status);
	LOCKED_RETURN(drain_context(context));
}
