"""The GPUs of the node, through NVML.

Nothing of the agent but this module calls NVML. Its calls may come from any thread: NVML is thread-safe, and `pynvml`
lets other threads run while a call blocks.

While NVML is let go of, a GPU's meters show what they showed when it was looked at last, and nothing can be ordered.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

import pynvml

from joulepath_warden.clocks import ClockRange
from joulepath_warden.session import Session

__all__ = ["Gpu", "GpuError", "NoNvmlError", "Nvml"]


_CAUSES: Final = {
    "heat": pynvml.nvmlClocksEventReasonHwThermalSlowdown | pynvml.nvmlClocksEventReasonSwThermalSlowdown,
    "power": pynvml.nvmlClocksEventReasonSwPowerCap,
    "brake": pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown | pynvml.nvmlClocksEventReasonHwSlowdown,
}
"""Bits that the driver sets."""
_MIG_REFUSAL: Final = (
    "MIG mode is on: a clock is the whole GPU's, so a plan for one instance would slow the others; turn MIG off to use "
    "plans"
)


class GpuError(RuntimeError):
    """NVML refused or failed; the text names the GPU and the call."""


class NoNvmlError(GpuError):
    """There is no NVML library: on most nodes, because there is no GPU."""


class Gpu:
    """One GPU."""

    def __init__(self, index: int, session: Session, site_range: ClockRange | None = None) -> None:
        self.index = index
        self._session = session
        self._site_range = site_range
        self._shown: dict[str, float] = {}
        self._answered_at_s = time.monotonic()
        self.uuid = f"GPU {index}"
        with self._calling("identify"):
            self._found = session.number, pynvml.nvmlDeviceGetHandleByIndex(index)
            self.uuid = str(pynvml.nvmlDeviceGetUUID(self._handle))
            self.model = str(pynvml.nvmlDeviceGetName(self._handle))
            memory_mhz = max(pynvml.nvmlDeviceGetSupportedMemoryClocks(self._handle))
            clocks = pynvml.nvmlDeviceGetSupportedGraphicsClocks(self._handle, memory_mhz)
        top = site_range.high_mhz if site_range else max(clocks)
        self.supported_clocks_mhz = tuple(sorted((int(clock) for clock in clocks if clock <= top), reverse=True))
        self.default_clock_mhz = self.supported_clocks_mhz[0]
        self.driver = ""
        """Version of the driver; empty where NVML doesn't tell."""
        self.power_cap_w: float | None = None
        """Watts that the driver holds it to; None where NVML doesn't tell."""
        self.read_limits()
        self.minor = self._minor_number()
        """Of /dev/nvidiaN, which needn't be the index; None where the driver doesn't tell."""
        self.mig = self._mig_mode()
        self.refused: str | None = _MIG_REFUSAL if self.mig else None
        """Why no plan may touch its clock; None if one may."""

    def renew(self, found: Gpu | None) -> None:
        """Takes what a later look has found of the same GPU: its MIG mode may be another; None if it isn't there."""
        if found is None:
            self.refused = "NVML doesn't show it any more"
        else:
            self.index, self.minor, self._found = found.index, found.minor, found._found
            self.mig, self.refused = found.mig, found.refused
            self.driver, self.power_cap_w = found.driver, found.power_cap_w
            self._answered_at_s = found._answered_at_s

    def silent_s(self, now_s: float) -> float:
        """Seconds since NVML last answered for this GPU, at a time of the monotonic clock; 0 while nobody asks it."""
        return now_s - self._answered_at_s if self._session.number else 0.0

    def locked_mhz(self, clock_mhz: int) -> int:
        """The clock that locking to one comes to, within the site's range; 0, which is no lock, stays 0."""
        if self._site_range is None or not clock_mhz:
            return clock_mhz
        return min(max(clock_mhz, self._site_range.low_mhz), self._site_range.high_mhz)

    def lock(self, clock_mhz: int) -> None:
        """Locks the clock, within the site's range; returns when the driver has taken the order, not when in force."""
        clock_mhz = self.locked_mhz(clock_mhz)
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
        return int(self._show("SM clock", lambda gpu: pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM)))

    def is_held_back(self) -> bool:
        """Whether the driver names a cause of its own for the clock that runs: power, heat, a brake, or that it idles.

        Settings of clocks are no such cause. A driver that names none at all is taken to have one.
        """
        reasons = self._clock_reasons()
        return reasons is None or bool(reasons & ~pynvml.nvmlClocksEventReasonApplicationsClocksSetting)

    def held_back_by(self) -> str:
        """The same cause in a word, the first of these: heat, power, brake; empty where there is none of them."""
        reasons = self._clock_reasons() or 0
        return next((word for word, mask in _CAUSES.items() if reasons & mask), "")

    def _clock_reasons(self) -> int | None:
        with self._calling("read of what holds the clock"):
            try:
                return int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle))
            except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
                return None

    def read_limits(self) -> None:
        """Looks at what its time and watts rest upon beside its clock, and what may be changed at any time.

        No clock depends on it: a GPU that doesn't tell is served.
        """
        with self._calling("read of the power limit"), contextlib.suppress(pynvml.NVMLError):
            self.driver = str(pynvml.nvmlSystemGetDriverVersion())
            self.power_cap_w = float(pynvml.nvmlDeviceGetEnforcedPowerLimit(self._handle)) / 1e3

    def energy_j(self) -> float:
        """The energy counter, joules since the driver was loaded; it moves in steps, about every 100 ms."""
        return self._show("energy counter", pynvml.nvmlDeviceGetTotalEnergyConsumption) / 1e3

    def energy_now_j(self) -> float:
        """The same, never what it was before NVML was let go of: for whoever takes a change for what was spent now.

        Raises:
            GpuError: NVML is let go of, or doesn't tell.
        """
        return self._read("energy counter", pynvml.nvmlDeviceGetTotalEnergyConsumption) / 1e3

    def power_w(self) -> float:
        """Watts now, by the GPU's own sensor."""
        return self._show("power", pynvml.nvmlDeviceGetPowerUsage) / 1e3

    def _show(self, meter: str, read: Callable[[object], float]) -> float:
        """What a meter shows; while NVML is let go of, what it showed last."""
        if self._session.number or meter not in self._shown:
            return self._read(meter, read)
        return self._shown[meter]

    def _read(self, meter: str, read: Callable[[object], float]) -> float:
        with self._calling(f"read of the {meter}"):
            self._shown[meter] = float(read(self._handle))
        return self._shown[meter]

    @property
    def _handle(self) -> object:
        """The GPU as NVML names it since it was last opened."""
        if self._found[0] != self._session.number:
            self._found = self._session.number, pynvml.nvmlDeviceGetHandleByUUID(self.uuid)
        return self._found[1]

    def _minor_number(self) -> int | None:
        try:
            return int(pynvml.nvmlDeviceGetMinorNumber(self._handle))
        except pynvml.NVMLError:
            return None

    def _mig_mode(self) -> bool:
        try:
            current, _ = pynvml.nvmlDeviceGetMigMode(self._handle)
        except pynvml.NVMLError:
            return False  # a GPU without MIG
        return bool(current)

    def _calling(self, what: str, *, needs_permission: bool = False) -> _Calling:
        return _Calling(self, self._session, what, needs_permission)

    def answered(self) -> None:
        """NVML has answered for it."""
        self._answered_at_s = time.monotonic()


class _Calling:
    """Some calls for one GPU, for which NVML is open. What it says instead of an answer becomes a GpuError.

    Not a generator: an order of a clock waits for it.
    """

    __slots__ = ("_gpu", "_needs_permission", "_session", "_what")

    def __init__(self, gpu: Gpu, session: Session, what: str, needs_permission: bool) -> None:
        self._gpu, self._session, self._what, self._needs_permission = gpu, session, what, needs_permission

    def __enter__(self) -> None:
        if not self._session.number:
            raise GpuError(f"{self._what} on {self._gpu.uuid}: NVML is let go of, since no rank is on this node")
        try:
            self._session.__enter__()
        except pynvml.NVMLError as error:
            raise self._told(error) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.__exit__(kind, error, trace)
        if error is None:
            self._gpu.answered()
        elif isinstance(error, pynvml.NVMLError):
            raise self._told(error) from None

    def _told(self, error: pynvml.NVMLError) -> GpuError:
        if self._needs_permission and isinstance(error, pynvml.NVMLError_NoPermission):
            self._gpu.refused = "NVML gives no permission to set clocks: give the agent's container CAP_SYS_ADMIN"
        return GpuError(f"{self._what} on {self._gpu.uuid}: NVML says {error}")


class Nvml:
    """NVML on this node: open from a look on until it is let go of."""

    def __init__(self, site_range: ClockRange | None = None) -> None:
        """`site_range` is what a reset restores, where the site locks clocks itself."""
        self._site_range = site_range
        self._session = Session()

    @property
    def is_open(self) -> bool:
        """Whether the driver's devices are open for it."""
        return self._session.number > 0

    def look(self) -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
        """The GPUs of the node, and what is wrong with those that can't be read (lost, or without clocks to set).

        Raises:
            NoNvmlError: There is no NVML library.
            GpuError: NVML fails.
        """
        found, unread = [], []
        try:
            with self._session:
                count = int(pynvml.nvmlDeviceGetCount())
        except pynvml.NVMLError_LibraryNotFound as error:
            raise NoNvmlError(str(error)) from None
        except pynvml.NVMLError as error:
            raise GpuError(f"NVML can't be used: {error}") from None
        for index in range(count):
            try:
                found.append(Gpu(index, self._session, self._site_range))
            except (GpuError, ValueError) as error:
                unread.append(str(error))
        return tuple(found), tuple(unread)

    def let_go(self) -> bool:
        """Closes the driver's devices, unless a call is under way; whether they are closed."""
        return self._session.let_go()
