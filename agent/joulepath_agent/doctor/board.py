"""What NVML tells of a GPU beside its clocks: who computes on it, its power limit, what holds its clock back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

import pynvml

from joulepath_clocks.gpus.nvml import Gpu, GpuError, Nvml
from joulepath_warden.clocks import ClockRange

__all__ = ["computing", "driver_version", "gpus", "power_limits_w", "slowed_by"]

_REASONS: Final = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}
"""Of nvml.h's nvmlClocksEventReasons those that keep a clock below what it is allowed to be."""


def gpus(site_range: ClockRange | None) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """The GPUs of the node, with NVML open from then on, and what is wrong with those that can't be read.

    Raises:
        GpuError: NVML can't be used.
    """
    return Nvml(site_range).look()


def driver_version() -> str:
    """The version of the driver; empty where NVML doesn't tell. NVML must be open."""
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return ""


def computing(uuid: str) -> tuple[int, ...]:
    """Processes that have a context on a GPU, as NVML numbers them (in the host's namespace, on real GPUs).

    Raises:
        GpuError: NVML doesn't tell.
    """
    processes = [*_ask("who computes", uuid, pynvml.nvmlDeviceGetComputeRunningProcesses)]
    with contextlib.suppress(pynvml.NVMLError):  # a GPU or a driver without MPS
        processes += pynvml.nvmlDeviceGetMPSComputeRunningProcesses(_handle(uuid))
    return tuple(sorted({int(process.pid) for process in processes}))


def power_limits_w(uuid: str) -> tuple[float, float]:
    """Watts that the driver enforces, and those that it would by default.

    Raises:
        GpuError: NVML doesn't tell.
    """
    enforced = _ask("the power limit", uuid, pynvml.nvmlDeviceGetEnforcedPowerLimit)
    default = _ask("the default power limit", uuid, pynvml.nvmlDeviceGetPowerManagementDefaultLimit)
    return float(enforced) / 1e3, float(default) / 1e3


def slowed_by(uuid: str) -> tuple[str, ...]:
    """What keeps its clock below what it is allowed to be, at this moment.

    Raises:
        GpuError: NVML doesn't tell.
    """
    bits = int(_ask("what holds the clock", uuid, _reasons))
    return tuple(name for bit, name in _REASONS.items() if bits & bit)


def _reasons(handle: Any) -> Any:
    try:
        return pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
    except pynvml.NVMLError_FunctionNotFound:  # drivers before 535 know them by another name
        return pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)


def _handle(uuid: str) -> Any:
    return pynvml.nvmlDeviceGetHandleByUUID(uuid)


def _ask(what: str, uuid: str, call: Callable[[Any], Any]) -> Any:
    try:
        return call(_handle(uuid))
    except pynvml.NVMLError as error:
        raise GpuError(f"{what} on {uuid}: NVML says {error}") from None
