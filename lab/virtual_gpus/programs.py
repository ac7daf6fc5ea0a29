"""What the tests do inside a process that sees virtual GPUs: `python -m virtual_gpus.programs NAME JSON-ARGUMENTS`.

The libraries read their environment once per process, so each test has processes of its own. A program prints its
result as JSON on its last line.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import pynvml

from virtual_gpus import stream

__all__ = [
    "NOT_READY",
    "change_clock_in_kernel",
    "default_stream_order",
    "describe",
    "fork",
    "memory_operations",
    "run_kernels",
    "run_until_killed",
    "set_clock_error",
    "set_clocks",
    "set_mig_mode",
    "two_streams",
    "watch_counter",
]


_CAP_SYS_ADMIN: Final = 21
NOT_READY: Final = 600


def _event(driver: ctypes.CDLL) -> ctypes.c_void_p:
    event = ctypes.c_void_p()
    assert driver.cuEventCreate(ctypes.byref(event), 0) == 0
    return event


def _elapsed_s(driver: ctypes.CDLL, first: ctypes.c_void_p, last: ctypes.c_void_p) -> float:
    milliseconds = ctypes.c_float()
    assert driver.cuEventElapsedTime(ctypes.byref(milliseconds), first, last) == 0
    return milliseconds.value / 1e3


def _nvml(gpu: int = 0) -> Any:
    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetHandleByIndex(gpu)


def _error_of(call: Callable[..., object], *arguments: object) -> int:
    try:
        call(*arguments)
    except pynvml.NVMLError as error:
        return int(error.value)
    return 0


def describe() -> dict[str, Any]:
    """Everything still that NVML says of GPU 0, and both libraries' names for all GPUs."""
    handle = _nvml()
    driver = ctypes.CDLL("libcuda.so.1")
    assert driver.cuInit(0) == 0
    count = ctypes.c_int()
    assert driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    cuda = []
    for device in range(count.value):
        identity = (ctypes.c_uint8 * 16)()
        assert driver.cuDeviceGetUuid_v2(identity, device) == 0
        cuda.append(bytes(identity).hex())
    n = pynvml
    return {
        "cuda_uuids": cuda,
        "nvml_uuids": [n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByIndex(i)) for i in range(n.nvmlDeviceGetCount())],
        "name": n.nvmlDeviceGetName(handle),
        "driver": n.nvmlSystemGetDriverVersion(),
        "clocks": n.nvmlDeviceGetSupportedGraphicsClocks(handle, n.nvmlDeviceGetSupportedMemoryClocks(handle)[0]),
        "mig": n.nvmlDeviceGetMigMode(handle),
        "minor": n.nvmlDeviceGetMinorNumber(handle),
        "persistence": n.nvmlDeviceGetPersistenceMode(handle),
        "bus": n.nvmlDeviceGetPciInfo(handle).busId,
        "by_uuid": n.nvmlDeviceGetIndex(n.nvmlDeviceGetHandleByUUID(n.nvmlDeviceGetUUID(handle))),
        "limits_mw": n.nvmlDeviceGetPowerManagementLimitConstraints(handle),
        "limit_mw": n.nvmlDeviceGetPowerManagementLimit(handle),
        "clock_mhz": n.nvmlDeviceGetClockInfo(handle, n.NVML_CLOCK_SM),
        "reasons": n.nvmlDeviceGetCurrentClocksEventReasons(handle),
        "memory_bytes": n.nvmlDeviceGetMemoryInfo(handle).total,
        "temperature_c": n.nvmlDeviceGetTemperature(handle, n.NVML_TEMPERATURE_GPU),
        "processes": len(n.nvmlDeviceGetComputeRunningProcesses(handle)),
        "bad_range": _error_of(n.nvmlDeviceSetGpuLockedClocks, handle, 900, 600),
        "bad_index": _error_of(n.nvmlDeviceGetHandleByIndex, 99),
        "fan": _error_of(n.nvmlDeviceGetFanSpeed, handle),
    }


def set_clocks(targets: list[int]) -> list[list[int]]:
    """Lock GPU 0 to each target in turn (0: reset); the moments before and after each call."""
    handle = _nvml()
    moments = []
    for mhz in targets:
        before = time.monotonic_ns()
        if mhz:
            pynvml.nvmlDeviceSetGpuLockedClocks(handle, mhz, mhz)
        else:
            pynvml.nvmlDeviceResetGpuLockedClocks(handle)
        moments.append([before, time.monotonic_ns()])
    return moments


def set_mig_mode(mode: int) -> dict[str, int]:
    """Turn MIG of GPU 0 on or off; what activating it came to, and the mode in force after."""
    handle = _nvml()
    activation = pynvml.nvmlDeviceSetMigMode(handle, mode)
    return {"activation": int(activation), "current": int(pynvml.nvmlDeviceGetMigMode(handle)[0])}


def set_clock_error(gpu: int = 0, drop: bool = False) -> dict[str, int]:
    """The NVML error of getting at a GPU or setting its clock, and whether the process had CAP_SYS_ADMIN."""
    pynvml.nvmlInit()
    if drop:
        _drop_sys_admin()
    with open("/proc/self/status") as lines:
        effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff"))

    def lock() -> None:
        pynvml.nvmlDeviceSetGpuLockedClocks(pynvml.nvmlDeviceGetHandleByIndex(gpu), 900, 900)

    error = _error_of(lock)
    return {"error": error, "capable": effective >> _CAP_SYS_ADMIN & 1}


def _drop_sys_admin() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= ~(1 << _CAP_SYS_ADMIN)
    assert libc.capset(header, sets) == 0


def watch_counter(values: int) -> dict[str, Any]:
    """Read the energy counter (mJ) as fast as can be until it has shown so many values."""
    handle = _nvml()
    stream.set_device(0)
    start = time.monotonic()
    shown = [pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)]
    reads = 1
    while len(shown) < values:
        reads += 1
        if (value := pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) != shown[-1]:
            shown.append(value)
    return {"shown": shown, "reads": reads, "seconds": time.monotonic() - start}


def run_kernels(names: list[list[Any]], clock_mhz: int = 0) -> dict[str, Any]:
    """Queue kernels back to back on GPU 0, under a lock in force if asked; their seconds of stream time each."""
    handle = _nvml()
    driver = ctypes.CDLL("libcuda.so.1")
    stream.set_device(0)
    if clock_mhz:
        pynvml.nvmlDeviceSetGpuLockedClocks(handle, clock_mhz, clock_mhz)
        while pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM) != clock_mhz:
            time.sleep(0.001)
    events = [_event(driver) for _ in range(len(names) + 1)]
    stream.launch(0, "W")  # long, so that all that counts is queued ahead
    assert driver.cuEventRecord(events[0], None) == 0
    for event, (stage, kind) in zip(events[1:], names, strict=True):
        stream.launch(stage, kind)
        assert driver.cuEventRecord(event, None) == 0
    stream.synchronize()
    return {
        "seconds": [_elapsed_s(driver, a, b) for a, b in itertools.pairwise(events)],
        "reasons": pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle),
    }


def change_clock_in_kernel(clock_mhz: int) -> dict[str, Any]:
    """Lower the clock while kernel 0/F runs."""
    handle = _nvml()
    driver = ctypes.CDLL("libcuda.so.1")
    stream.set_device(0)
    first, last = _event(driver), _event(driver)
    before = time.monotonic_ns()
    stream.launch(0, "W")  # so that all that counts is queued ahead
    assert driver.cuEventRecord(first, None) == 0
    stream.launch(0, "F")
    after = time.monotonic_ns()
    assert driver.cuEventRecord(last, None) == 0
    pynvml.nvmlDeviceSetGpuLockedClocks(handle, clock_mhz, clock_mhz)
    stream.synchronize()
    return {"launched": [before, after], "seconds": _elapsed_s(driver, first, last)}


def memory_operations() -> dict[str, Any]:
    """Write 1 after a short kernel and 2 after one that never ends in a test's time."""
    driver = ctypes.CDLL("libcuda.so.1")
    stream.set_device(0)
    page = (ctypes.c_uint32 * 1024)()
    pointer = ctypes.c_ulonglong()
    unregistered = driver.cuStreamWriteValue32_v2(None, ctypes.c_ulonglong(ctypes.addressof(page)), 9, 0)
    assert driver.cuMemHostRegister_v2(page, ctypes.c_size_t(ctypes.sizeof(page)), 0) == 0
    assert driver.cuMemHostGetDevicePointer_v2(ctypes.byref(pointer), page, 0) == 0
    for value, kind in ((1, "F"), (2, "B")):
        stream.launch(0, kind)
        assert driver.cuStreamWriteValue32_v2(None, pointer, value, 0) == 0
    while page[0] == 0:
        time.sleep(0.001)
    return {"value": page[0], "query": driver.cuStreamQuery(None), "unregistered": unregistered}


def two_streams() -> dict[str, Any]:
    """A stream waits for another's event: what it runs ends after what the other ran."""
    driver = ctypes.CDLL("libcuda.so.1")
    stream.set_device(0)
    streams = [ctypes.c_void_p(), ctypes.c_void_p()]
    for one in streams:
        assert driver.cuStreamCreate(ctypes.byref(one), 1) == 0
    start, middle, end = _event(driver), _event(driver), _event(driver)
    order: list[int] = []
    called = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: order.append(1))
    kernel = stream._kernel(0, "F")
    assert driver.cuEventRecord(start, streams[0]) == 0
    assert driver.virtualGpuLaunch(streams[0], kernel) == 0
    assert driver.cuEventRecord(middle, streams[0]) == 0
    assert driver.cuStreamWaitEvent(streams[1], middle, 0) == 0
    assert driver.virtualGpuLaunch(streams[1], kernel) == 0
    assert driver.cuLaunchHostFunc(streams[1], called, None) == 0
    assert driver.cuEventRecord(end, streams[1]) == 0
    assert driver.cuEventSynchronize(end) == 0
    unknown = driver.virtualGpuLaunch(streams[1], 0)
    for one in streams:
        assert driver.cuStreamDestroy_v2(one) == 0
    gone = driver.cuStreamQuery(streams[0])
    first, total = _elapsed_s(driver, start, middle), _elapsed_s(driver, start, end)
    return {"first": first, "total": total, "called": len(order), "unknown": unknown, "gone": gone}


def default_stream_order() -> dict[str, Any]:
    """The legacy default stream waits for a blocking stream, and not for one that is not."""
    driver = ctypes.CDLL("libcuda.so.1")
    stream.set_device(0)
    blocking = ctypes.c_void_p()
    assert driver.cuStreamCreate(ctypes.byref(blocking), 0) == 0
    start, end = _event(driver), _event(driver)
    assert driver.cuEventRecord(start, blocking) == 0
    assert driver.virtualGpuLaunch(blocking, stream._kernel(0, "F")) == 0
    assert driver.cuEventRecord(end, None) == 0
    assert driver.cuEventSynchronize(end) == 0
    return {"seconds": _elapsed_s(driver, start, end)}


def fork() -> dict[str, Any]:
    """A forked child may not use its parent's GPU, and its end frees nothing."""
    driver = ctypes.CDLL("libcuda.so.1")
    stream.set_device(0)
    child = os.fork()
    if not child:
        os._exit(driver.virtualGpuLaunch(None, stream._kernel(0, "F")) & 0xFF)
    _, status = os.waitpid(child, 0)
    stream.launch(0, "F")
    stream.synchronize()
    processes = len(pynvml.nvmlDeviceGetComputeRunningProcesses(_nvml()))
    return {"child": os.waitstatus_to_exitcode(status), "processes": processes}


def run_until_killed() -> None:
    """Queue far more work than a test lasts, say so, and wait."""
    stream.set_device(0)
    for _ in range(50):
        stream.launch(0, "B")
    print(json.dumps({"pid": os.getpid()}), flush=True)
    signal.pause()


if __name__ == "__main__":
    result = globals()[sys.argv[1]](**json.loads(sys.argv[2]))
    print(json.dumps(result), flush=True)
