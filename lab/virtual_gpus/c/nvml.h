/* The part of NVIDIA's nvml.h that this library answers, by names and layouts as nvidia-ml-py declares them. */
#ifndef VIRTUAL_GPUS_NVML_H
#define VIRTUAL_GPUS_NVML_H

#include <stdint.h>

typedef enum {
	NVML_SUCCESS = 0,
	NVML_ERROR_UNINITIALIZED = 1,
	NVML_ERROR_INVALID_ARGUMENT = 2,
	NVML_ERROR_NOT_SUPPORTED = 3,
	NVML_ERROR_NO_PERMISSION = 4,
	NVML_ERROR_NOT_FOUND = 6,
	NVML_ERROR_INSUFFICIENT_SIZE = 7,
	NVML_ERROR_DRIVER_NOT_LOADED = 9,
	NVML_ERROR_GPU_IS_LOST = 15,
	NVML_ERROR_IN_USE = 19,
	NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
	NVML_ERROR_UNKNOWN = 999,
} nvmlReturn_t;

typedef struct nvmlDevice *nvmlDevice_t;

typedef struct { char busIdLegacy[16]; unsigned domain, bus, device, pciDeviceId, pciSubSystemId; char busId[32]; } nvmlPciInfo_t;
typedef struct { unsigned gpu, memory; } nvmlUtilization_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } nvmlMemory_v2_t;
typedef struct { unsigned long long bar1Total, bar1Free, bar1Used; } nvmlBAR1Memory_t;
typedef struct { unsigned pid; unsigned long long usedGpuMemory; unsigned gpuInstanceId, computeInstanceId; } nvmlProcessInfo_t;
typedef struct { unsigned version; unsigned sensorType; int temperature; } nvmlTemperature_t;
typedef union { double dVal; unsigned uiVal; unsigned long long ullVal; } nvmlValue_t;
typedef struct { unsigned fieldId, scopeId; long long timestamp, latencyUsec; unsigned valueType; nvmlReturn_t nvmlReturn; nvmlValue_t value; } nvmlFieldValue_t;

enum { NVML_CLOCK_GRAPHICS, NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_CLOCK_VIDEO, NVML_CLOCK_COUNT };
enum { NVML_CLOCK_ID_CURRENT = 0, NVML_CLOCK_ID_APP_CLOCK_TARGET, NVML_CLOCK_ID_APP_CLOCK_DEFAULT, NVML_CLOCK_ID_CUSTOMER_BOOST_MAX };
enum {
	nvmlClocksEventReasonGpuIdle = 0x1,
	nvmlClocksEventReasonApplicationsClocksSetting = 0x2,
	nvmlClocksEventReasonSwPowerCap = 0x4,
	nvmlClocksEventReasonSwThermalSlowdown = 0x20,
	supportedReasons = 0x1ff,
};
enum {
	NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION = 83,
	NVML_FI_DEV_POWER_AVERAGE = 185,
	NVML_FI_DEV_POWER_INSTANT = 186,
	NVML_FI_DEV_POWER_MIN_LIMIT = 187,
	NVML_FI_DEV_POWER_MAX_LIMIT = 188,
	NVML_FI_DEV_POWER_DEFAULT_LIMIT = 189,
	NVML_FI_DEV_POWER_CURRENT_LIMIT = 190,
};
enum { NVML_VALUE_TYPE_UNSIGNED_INT = 1, NVML_VALUE_TYPE_UNSIGNED_LONG_LONG = 3 };
enum { NVML_TEMPERATURE_THRESHOLD_SHUTDOWN, NVML_TEMPERATURE_THRESHOLD_SLOWDOWN, NVML_TEMPERATURE_THRESHOLD_MEM_MAX, NVML_TEMPERATURE_THRESHOLD_GPU_MAX };

/* nvml.c: what the other files need */
struct node;
struct sim;
struct node *nvml_node(void); /* NULL before nvmlInit and after nvmlShutdown */
nvmlReturn_t nvml_device(nvmlDevice_t device, uint32_t *gpu);
nvmlReturn_t nvml_may_administer(void);
void nvml_view(uint32_t gpu, struct sim *sim); /* the GPU as it is now */

/* For a getter of the device's present state: `gpu` and `sim` come into being, or the error is returned. */
#define VIEW(device)                                       \
	uint32_t gpu;                                      \
	struct sim sim;                                    \
	nvmlReturn_t status_ = nvml_device(device, &gpu);  \
	if (status_)                                       \
		return status_;                            \
	nvml_view(gpu, &sim)

#endif
