/* Compiled against NVIDIA's own cuda.h: its names, layouts and constants must be those of the virtual library. */
#include <cuda.h>
#include <stdio.h>

#define CHECK(call)                                                   \
	do {                                                          \
		CUresult result = (call);                             \
		if (result != CUDA_SUCCESS) {                         \
			fprintf(stderr, "%s: %d\n", #call, (int)result); \
			return 1;                                     \
		}                                                     \
	} while (0)

int main(void) {
	static unsigned page[1024];
	CUdevice device;
	CUcontext context, current;
	CUstream stream;
	CUevent first, last;
	CUuuid uuid;
	CUdeviceptr pointer;
	float milliseconds;
	int supported;
	CHECK(cuInit(0));
	CHECK(cuDeviceGet(&device, 0));
	CHECK(cuDeviceGetUuid(&uuid, device));
	CHECK(cuDeviceGetAttribute(&supported, CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_MEM_OPS_V1, device));
	CHECK(supported ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED);
	CHECK(cuDeviceGetAttribute(&supported, CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED, device));
	CHECK(supported ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED);
	CHECK(cuDevicePrimaryCtxRetain(&context, device));
	CHECK(cuCtxSetCurrent(context));
	CHECK(cuCtxGetCurrent(&current));
	CHECK(current == context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT);
	CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
	CHECK(cuEventCreate(&first, CU_EVENT_DEFAULT));
	CHECK(cuEventCreate(&last, CU_EVENT_DEFAULT));
	CHECK(cuMemHostRegister(page, sizeof page, CU_MEMHOSTREGISTER_DEVICEMAP));
	CHECK(cuMemHostGetDevicePointer(&pointer, page, 0));
	CHECK(cuEventRecord(first, stream));
	CHECK(cuStreamWriteValue32(stream, pointer, 7, CU_STREAM_WRITE_VALUE_DEFAULT));
	CHECK(cuEventRecord(last, stream));
	CHECK(cuStreamSynchronize(stream));
	CHECK(cuEventElapsedTime(&milliseconds, first, last));
	CHECK(cuMemHostUnregister(page));
	CHECK(cuStreamDestroy(stream));
	CHECK(cuDevicePrimaryCtxRelease(device));
	printf("%u\n", page[0]);
	return 0;
}
