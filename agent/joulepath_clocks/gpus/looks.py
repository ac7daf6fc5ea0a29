"""Looks at the SM clock of GPUs that compute: where default clocks settle, what holds them back, who else sets them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import Final

from joulepath_clocks.gpus.foreign import Suspicion
from joulepath_clocks.gpus.nvml import GpuError
from joulepath_clocks.gpus.setter import ClockSetter

__all__ = ["Computes", "Looks", "Watch"]

log = logging.getLogger(__name__)

Computes = Callable[[], bool]
"""Whether a rank runs an instruction now, as far as is known."""

_PERIOD_S: Final = 0.2
_PAUSE_S: Final = 1.0
"""After a look that failed."""


class Watch:
    """What the looks at one GPU have shown."""

    def __init__(self, setter: ClockSetter, on_other: Callable[[float, int, bool], None]) -> None:
        """`on_other` is told when a clock was not the one ordered, in MHz, and whether somebody else has set it."""
        self._setter, self._on_other = setter, on_other
        self._suspicion = Suspicion()
        self._resume_at_s = 0.0

    def look(self, computes: Computes, now: float) -> None:
        """Looks once, if that tells something now."""
        setter = self._setter
        ordered_mhz, ordered_at_s = setter.ordered_mhz, setter.ordered_at_s
        if now < self._resume_at_s or not computes() or now - ordered_at_s <= setter.settling_s:
            return
        try:
            settled, clock_mhz = setter.settled, setter.gpu.sm_clock_mhz()
            locked_mhz = setter.gpu.locked_mhz(ordered_mhz)
            too_low = clock_mhz < settled.lowest_mhz(locked_mhz) and not setter.gpu.is_held_back()
        except GpuError as error:
            self._resume_at_s = now + _PAUSE_S
            log.warning("%s; its clock isn't looked at for a second", error)
            return
        contradicts = too_low or clock_mhz > settled.highest_mhz(locked_mhz)
        if not computes() or setter.ordered_at_s != ordered_at_s:
            return
        if doubted_s := self._suspicion.look(ordered_mhz, contradicts, now):
            for at_s in doubted_s:
                self._on_other(at_s, clock_mhz, True)
            setter.contradict(ordered_mhz, clock_mhz)
        if contradicts:
            return
        if not ordered_mhz:
            settled.add(clock_mhz)
        elif clock_mhz < ordered_mhz - settled.step_mhz:
            self._on_other(now, clock_mhz, False)


class Looks:
    """One thread that looks at all GPUs that have a rank."""

    def __init__(self, active: Callable[[], Collection[tuple[Watch, Computes]]]) -> None:
        """`active` tells the GPUs that have a rank."""
        self._active = active
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="looks", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(_PERIOD_S):
            for watch, computes in self._active():
                try:
                    watch.look(computes, time.monotonic())
                except Exception:
                    log.exception("looking at a clock failed")
