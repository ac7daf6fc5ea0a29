/* Virtual libnvidia-ml.so.1, the still half: names, addresses, modes, and what an A100 SXM has not. */
#define _GNU_SOURCE
#include "node.h"
#include "nvml.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define DRIVER_VERSION "580.0-virtual"
#define CUDA_VERSION 13000
#define FIRST_BUS 0x10

const char *nvmlErrorString(nvmlReturn_t error) {
	switch (error) {
	case NVML_SUCCESS: return "Success";
	case NVML_ERROR_UNINITIALIZED: return "Uninitialized";
	case NVML_ERROR_INVALID_ARGUMENT: return "Invalid Argument";
	case NVML_ERROR_NOT_SUPPORTED: return "Not Supported";
	case NVML_ERROR_NO_PERMISSION: return "Insufficient Permissions";
	case NVML_ERROR_NOT_FOUND: return "Not Found";
	case NVML_ERROR_INSUFFICIENT_SIZE: return "Insufficient Size";
	case NVML_ERROR_DRIVER_NOT_LOADED: return "Driver Not Loaded";
	case NVML_ERROR_GPU_IS_LOST: return "GPU is lost";
	case NVML_ERROR_IN_USE: return "In use by another client";
	case NVML_ERROR_ARGUMENT_VERSION_MISMATCH: return "Argument version mismatch";
	default: return "Unknown Error";
	}
}

__attribute__((format(printf, 3, 4))) static nvmlReturn_t put(char *buffer, unsigned size, const char *format, ...) {
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(buffer, size, format, arguments);
	va_end(arguments);
	return (unsigned)length < size ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

#define KNOWN(device)                                     \
	uint32_t gpu;                                     \
	nvmlReturn_t status_ = nvml_device(device, &gpu); \
	if (status_)                                      \
	return status_

/* Getters that say the same of every GPU. */
#define CONSTANT(function, type, answer)                   \
	nvmlReturn_t function(nvmlDevice_t device, type *value) { \
		KNOWN(device);                             \
		*value = (answer);                         \
		return NVML_SUCCESS;                       \
	}
#define CONSTANT_PAIR(function, first, second)                              \
	nvmlReturn_t function(nvmlDevice_t device, unsigned *a, unsigned *b) { \
		KNOWN(device);                                              \
		*a = (first);                                               \
		*b = (second);                                              \
		return NVML_SUCCESS;                                        \
	}
#define NOT_SUPPORTED(function)                       \
	nvmlReturn_t function(nvmlDevice_t device) {  \
		KNOWN(device);                        \
		return NVML_ERROR_NOT_SUPPORTED;      \
	}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned size) {
	return nvml_node() ? put(version, size, DRIVER_VERSION) : NVML_ERROR_UNINITIALIZED;
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned size) {
	return nvml_node() ? put(version, size, "13." DRIVER_VERSION) : NVML_ERROR_UNINITIALIZED;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
	*version = CUDA_VERSION;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
	return nvmlSystemGetCudaDriverVersion_v2(version);
}

static void uuid_text(uint32_t gpu, char text[48]) {
	const uint8_t *u = nvml_node()->config.uuid[gpu];
	char *p = text + sprintf(text, "GPU-");
	for (int i = 0; i < 16; i++)
		p += sprintf(p, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", u[i]);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned size) {
	KNOWN(device);
	char text[48];
	uuid_text(gpu, text);
	return put(uuid, size, "%s", text);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned size) {
	KNOWN(device);
	return put(name, size, "%s", nvml_node()->config.gpu_name);
}

nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *serial, unsigned size) {
	KNOWN(device);
	const uint8_t *u = nvml_node()->config.uuid[gpu];
	return put(serial, size, "%010u", (unsigned)(u[0] << 16 | u[1] << 8 | u[2]) * 16 + gpu);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci) {
	KNOWN(device);
	*pci = (nvmlPciInfo_t){.bus = FIRST_BUS + gpu, .pciDeviceId = 0x20b210de, .pciSubSystemId = 0x146310de};
	snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "0000:%02X:00.0", pci->bus & 0xff);
	snprintf(pci->busId, sizeof pci->busId, "00000000:%02X:00.0", pci->bus & 0xff);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_t *pci) {
	return nvmlDeviceGetPciInfo_v3(device, pci);
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count);
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device);

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
	unsigned count;
	nvmlReturn_t status = nvmlDeviceGetCount_v2(&count);
	if (status)
		return status;
	for (unsigned i = 0; i < count; i++) {
		char text[48];
		status = nvmlDeviceGetHandleByIndex_v2(i, device);
		uint32_t gpu;
		nvml_device(*device, &gpu);
		uuid_text(gpu, text);
		if (!strcasecmp(text, uuid))
			return status;
	}
	return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device) {
	unsigned count;
	nvmlReturn_t status = nvmlDeviceGetCount_v2(&count);
	if (status)
		return status;
	for (unsigned i = 0; i < count; i++) {
		nvmlPciInfo_t pci;
		status = nvmlDeviceGetHandleByIndex_v2(i, device);
		if (nvmlDeviceGetPciInfo_v3(*device, &pci))
			continue;
		if (!strcasecmp(pci.busId, bus_id) || !strcasecmp(pci.busIdLegacy, bus_id))
			return status;
	}
	return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned *number) {
	KNOWN(device);
	*number = nvml_node()->config.minor[gpu];
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, unsigned *mode) {
	KNOWN(device);
	*mode = nvml_node()->gpu[gpu].persistence;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, unsigned threshold, unsigned *celsius) {
	KNOWN(device);
	static const unsigned of_a100[] = {92, 89, 95, 85};
	if (threshold > NVML_TEMPERATURE_THRESHOLD_GPU_MAX)
		return NVML_ERROR_NOT_SUPPORTED;
	*celsius = of_a100[threshold];
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *memory) {
	KNOWN(device);
	*memory = (nvmlBAR1Memory_t){.bar1Total = 128ull << 30, .bar1Free = (128ull << 30) - (4 << 20), .bar1Used = 4 << 20};
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *processes) {
	(void)processes;
	KNOWN(device);
	*count = 0;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *processes) {
	return nvmlDeviceGetGraphicsRunningProcesses_v3(device, count, processes);
}

nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, void *samples, unsigned *count, unsigned long long since) {
	(void)samples;
	(void)since;
	KNOWN(device);
	*count = 0;
	return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned type, unsigned counter, unsigned long long *errors) {
	(void)type;
	(void)counter;
	KNOWN(device);
	*errors = 0;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, unsigned counter, unsigned *kilobytes) {
	(void)counter;
	KNOWN(device);
	*kilobytes = 0;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNumGpuCores(nvmlDevice_t device, unsigned *cores) {
	KNOWN(device);
	*cores = 6912;
	return NVML_SUCCESS;
}

CONSTANT(nvmlDeviceGetArchitecture, unsigned, 7)
CONSTANT(nvmlDeviceGetBrand, unsigned, 14)
CONSTANT(nvmlDeviceGetComputeMode, unsigned, 0)
CONSTANT(nvmlDeviceGetDisplayMode, unsigned, 0)
CONSTANT(nvmlDeviceGetDisplayActive, unsigned, 0)
CONSTANT(nvmlDeviceGetMaxMigDeviceCount, unsigned, 7)
CONSTANT(nvmlDeviceIsMigDeviceHandle, unsigned, 0)
CONSTANT_PAIR(nvmlDeviceGetEccMode, 1, 1)
CONSTANT_PAIR(nvmlDeviceGetCudaComputeCapability, 8, 0)
CONSTANT_PAIR(nvmlDeviceGetEncoderUtilization, 0, 167000)
CONSTANT_PAIR(nvmlDeviceGetDecoderUtilization, 0, 167000)
NOT_SUPPORTED(nvmlDeviceGetFanSpeed)
NOT_SUPPORTED(nvmlDeviceGetDriverModel)
NOT_SUPPORTED(nvmlDeviceGetDriverModel_v2)
