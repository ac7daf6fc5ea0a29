"""The GPUs of the node, through NVML.

Nothing of the agent but this module calls NVML. Its calls may come from any thread: NVML is thread-safe, and `pynvml`
lets other threads run while a call blocks.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pynvml

from joulepath_warden.clocks import ClockRange

__all__ = ["Gpu", "GpuError", "NoNvmlError", "open_gpus"]


class GpuError(RuntimeError):
    """NVML refused or failed; the text names the GPU and the call."""


class NoNvmlError(GpuError):
    """There is no NVML library: on most nodes, because there is no GPU."""


class Gpu:
    """One GPU."""

    def __init__(self, index: int, site_range: ClockRange | None = None) -> None:
        self.index = index
        self._site_range = site_range
        self.uuid = f"GPU {index}"
        with self._calling("identify"):
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            self.uuid = str(pynvml.nvmlDeviceGetUUID(self._handle))
            self.model = str(pynvml.nvmlDeviceGetName(self._handle))
            memory_mhz = max(pynvml.nvmlDeviceGetSupportedMemoryClocks(self._handle))
            clocks = pynvml.nvmlDeviceGetSupportedGraphicsClocks(self._handle, memory_mhz)
        top = site_range.high_mhz if site_range else max(clocks)
        self.supported_clocks_mhz = tuple(sorted((int(clock) for clock in clocks if clock <= top), reverse=True))
        self.default_clock_mhz = self.supported_clocks_mhz[0]
        self.refused = self._mig_refusal()
        """Why no plan may touch its clock; None if one may."""

    def silent_s(self, now_s: float) -> float:
        """Seconds since NVML last answered for this GPU, at a time of the monotonic clock."""
        return now_s - self._answered_at_s

    def lock(self, clock_mhz: int) -> None:
        """Locks the clock, within the site's range; returns when the driver has taken the order, not when in force."""
        if self._site_range is not None:
            clock_mhz = min(max(clock_mhz, self._site_range.low_mhz), self._site_range.high_mhz)
        with self._calling(f"lock to {clock_mhz} MHz", needs_permission=True):
            pynvml.nvmlDeviceSetGpuLockedClocks(self._handle, clock_mhz, clock_mhz)

    def reset(self) -> None:
        """Back to default clocks: those of the site if it declared some, else no lock."""
        with self._calling("reset of the clock", needs_permission=True):
            if self._site_range is None:
                pynvml.nvmlDeviceResetGpuLockedClocks(self._handle)
            else:
                pynvml.nvmlDeviceSetGpuLockedClocks(self._handle, self._site_range.low_mhz, self._site_range.high_mhz)

    def sm_clock_mhz(self) -> int:
        """The SM clock now."""
        with self._calling("read of the SM clock"):
            return int(pynvml.nvmlDeviceGetClockInfo(self._handle, pynvml.NVML_CLOCK_SM))

    def is_held_back(self) -> bool:
        """Whether the driver names a cause of its own for the clock that runs: power, heat, a brake, or that it idles.

        Settings of clocks are no such cause. A driver that names none at all is taken to have one.
        """
        with self._calling("read of what holds the clock"):
            try:
                reasons = pynvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle)
            except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
                return True
            return bool(reasons & ~pynvml.nvmlClocksEventReasonApplicationsClocksSetting)

    def energy_j(self) -> float:
        """The energy counter, joules since the driver was loaded; it moves in steps, about every 100 ms."""
        with self._calling("read of the energy counter"):
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3

    def power_w(self) -> float:
        """Watts now, by the GPU's own sensor."""
        with self._calling("read of the power"):
            return float(pynvml.nvmlDeviceGetPowerUsage(self._handle)) / 1e3

    def _mig_refusal(self) -> str | None:
        try:
            current, _ = pynvml.nvmlDeviceGetMigMode(self._handle)
        except pynvml.NVMLError:
            return None  # a GPU without MIG
        return "MIG mode is on; a clock would be shared by its instances: turn it off to use plans" if current else None

    @contextlib.contextmanager
    def _calling(self, what: str, *, needs_permission: bool = False) -> Iterator[None]:
        try:
            yield
            self._answered_at_s = time.monotonic()
        except pynvml.NVMLError as error:
            if needs_permission and isinstance(error, pynvml.NVMLError_NoPermission):
                self.refused = "NVML gives no permission to set clocks: give the agent's container CAP_SYS_ADMIN"
            raise GpuError(f"{what} on {self.uuid}: NVML says {error}") from None


def open_gpus(site_range: ClockRange | None = None) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """The GPUs of the node, and what is wrong with those that can't be read (lost, or without clocks to set).

    May be called again, until all are read.

    Raises:
        NoNvmlError: There is no NVML library.
        GpuError: NVML fails.
    """
    try:
        pynvml.nvmlInit()
        count = int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError_LibraryNotFound as error:
        raise NoNvmlError(str(error)) from None
    except pynvml.NVMLError as error:
        raise GpuError(f"NVML can't be used: {error}") from None
    found, unread = [], []
    for index in range(count):
        try:
            found.append(Gpu(index, site_range))
        except (GpuError, ValueError) as error:
            unread.append(str(error))
    return tuple(found), tuple(unread)
