"""No GPUs to be found: is that harmless, or a fault? Pure.

Where there is no NVML library, no driver and no GPU that the warden has in doubt, the node has no GPUs:
nothing is wrong, and the agent idles. Where there is a driver but no library, this container can't see it (it has
another runtime class, or is older than the driver); where NVML fails, or may hide a GPU that is still locked, something
is wrong.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from joulepath_clocks.gpus.nvml import GpuError, NoNvmlError

__all__ = ["Absence", "explain"]


@dataclass(frozen=True, slots=True)
class Absence:
    """Why there are no GPUs."""

    what: str
    is_fault: bool


def explain(error: GpuError, left_locked: Collection[str], *, driver_is_loaded: bool, retry_s: float) -> Absence:
    """Tells which it is.

    Args:
        error: What NVML raised.
        left_locked: UUIDs of GPUs that may be locked.
        driver_is_loaded: Whether the host's kernel has NVIDIA's driver.
        retry_s: Between two looks.
    """
    if not isinstance(error, NoNvmlError):
        return Absence(str(error), is_fault=True)
    if left_locked:
        gone = ", ".join(sorted(left_locked))
        return Absence(f"{error}, but these GPUs may still be locked, says the warden: {gone}", is_fault=True)
    if driver_is_loaded:
        return Absence(
            f"{error}, but a driver is loaded: give this pod the NVIDIA runtime class, or restart it", is_fault=True
        )
    return Absence(
        f"this node has no GPUs (no NVML library, no driver): idle, {retry_s:.0f} s between two looks", is_fault=False
    )
