"""The lease of a GPU while it is examined: no clock is touched without one, and none stays locked."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Iterator
from typing import Final

from joulepath_clocks.gpus.leasing import Leasing
from joulepath_clocks.gpus.nvml import Gpu, GpuError

__all__ = ["Hold", "NotMeasuredError", "StoppedError"]

log = logging.getLogger(__name__)

_LEASE_S: Final = 5.0
"""So long a warden that has just started may still reset that GPU."""
_AGAIN_S: Final = 0.2
_HANGS_S: Final = 1.0
_RESET_S: Final = 10.0


class StoppedError(Exception):
    """The examination is to end: told so, revoked by the warden, or somebody came onto the GPU."""


class NotMeasuredError(Exception):
    """Something can't be measured here; the text says why, and what would help."""


class Hold:
    """One GPU. Its methods are called by the one thread that examines it, but for `stop` and `well`."""

    def __init__(self, gpu: Gpu, lessor: Leasing, *, leave_clocks: bool = False, pace: float = 1.0) -> None:
        """Nothing is leased before the first lock.

        Args:
            gpu: The GPU.
            lessor: Who leases it.
            leave_clocks: Nothing is ever leased.
            pace: Of the usual time that checks take.
        """
        self.gpu = gpu
        self.pace = pace
        self.lessor = lessor
        """Who leases it; another one once what was leased is given back."""
        self._leave_clocks = leave_clocks
        self._stop = threading.Event()
        self._why = ""
        self._leased = self._locked = False
        self._called_at_s = math.inf

    def stop(self, why: str) -> None:
        """Ends the examination at its next step."""
        self._why = self._why or why
        self._stop.set()

    @property
    def why(self) -> str:
        """Why it was told to end; empty where it wasn't."""
        return self._why

    @property
    def in_doubt(self) -> bool:
        """Whether the warden is resetting it, and hasn't yet."""
        return self.gpu.uuid in self.lessor.in_doubt

    def called_for_s(self, now_s: float) -> float:
        """Seconds that a call of NVML is under way; below 0 while none is."""
        return now_s - self._called_at_s

    def well(self, now_s: float) -> bool:
        """Whether no call of NVML hangs."""
        return self.called_for_s(now_s) < _HANGS_S

    @contextlib.contextmanager
    def calling(self) -> Iterator[Gpu]:
        """The GPU, for a call of NVML: one that hangs is noticed."""
        self._called_at_s = time.monotonic()
        try:
            yield self.gpu
        finally:
            self._called_at_s = math.inf

    def sm_clock_mhz(self) -> int:
        """See Gpu."""
        with self.calling() as gpu:
            return gpu.sm_clock_mhz()

    def energy_j(self) -> float:
        """See Gpu."""
        with self.calling() as gpu:
            return gpu.energy_j()

    def rest(self, seconds: float) -> None:
        """Waits.

        Raises:
            StoppedError: It is to end.
        """
        if self._stop.wait(max(0.0, seconds)):
            raise StoppedError(self._why)

    def lock(self, clock_mhz: int) -> float:
        """Locks a clock, 0 is default clocks; the moment of the call, on the monotonic clock.

        Raises:
            StoppedError: It is to end.
            NotMeasuredError: There is no lease.
            GpuError: NVML refuses.
        """
        self.rest(0.0)
        self._lease()
        begun_s = time.monotonic()
        with self.calling() as gpu:
            if clock_mhz:
                self._locked = True  # before the call: one that fails may have locked
                gpu.lock(clock_mhz)
            else:
                gpu.reset()
        self._locked = bool(clock_mhz)
        return begun_s

    def close(self) -> None:
        """Default clocks, and the lease given back; what can't be reset is left to the warden, which goes on."""
        deadline_s = time.monotonic() + _RESET_S
        while self._locked:
            try:
                with self.calling() as gpu:
                    gpu.reset()
                self._locked = False
            except GpuError as error:
                if self.gpu.refused or time.monotonic() > deadline_s:
                    log.error("%s; the warden resets it", error)
                    return
                time.sleep(_AGAIN_S)
        if self._leased:
            self._leased = False
            self.lessor.give_back(self.gpu.uuid)

    def _lease(self) -> None:
        if self._leave_clocks:
            raise NotMeasuredError("clocks are left alone (--leave-clocks)")
        deadline_s = time.monotonic() + _LEASE_S
        while not self._leased:
            refused = self.lessor.take(self.gpu.uuid)
            self._leased = not refused
            if refused and time.monotonic() > deadline_s:
                raise NotMeasuredError(f"no lease of the clock: {refused}")
            self.rest(_AGAIN_S if refused else 0.0)
