"""The lease: the only thing that keeps a clock locked. It holds a rank's wish, and every doubt ends it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from enum import StrEnum

from joulepath_clocks.gpus.setter import ClockSetter
from joulepath_clocks.gpus.wish import Wish

__all__ = ["End", "Lease"]

log = logging.getLogger(__name__)


class End(StrEnum):
    """Why a lease ended."""

    PROCESS_GONE = "ProcessGone"
    CONNECTION_CLOSED = "ConnectionClosed"
    POD_GONE = "PodGone"
    MARKERS_STOPPED = "MarkersStopped"
    MARKERS_LOST = "MarkersLost"
    STEP_BROKEN_OFF = "StepBrokenOff"
    OTHER_WORK = "OtherWork"
    PLAN_OVER = "PlanOver"
    PLAN_CHANGED = "PlanChanged"
    PLAN_EXPIRED = "PlanExpired"
    ORDER_MISMATCH = "OrderMismatch"
    GUARD_TRIPPED = "GuardTripped"
    SLOW_PLAN = "SlowPlan"
    PLAN_UNWATCHED = "PlanUnwatched"
    CLOCK_FAILED = "ClockFailed"
    GPU_SHARED = "GpuShared"
    FOREIGN_CLOCK = "ForeignClock"
    NO_WARDEN_LEASE = "NoWardenLease"
    FOLLOWER_FAILED = "FollowerFailed"
    AGENT_STOPPED = "AgentStopped"

    @property
    def is_usual(self) -> bool:
        """Whether a sound training has leases end so every few iterations, until the next one begins."""
        return self in (End.STEP_BROKEN_OFF, End.OTHER_WORK)


class Lease:
    """The lease of one rank on its GPU's clock: held from its first wish until it ends, and again from the next one."""

    def __init__(self, setter: ClockSetter, holder: str, on_end: Callable[[End], None]) -> None:
        """`holder` says for the log whose lease it is; `on_end` is called each time that it ends."""
        self._setter = setter
        self._holder = holder
        self._on_end = on_end
        self._held = False
        self._lock = threading.Lock()

    @property
    def held(self) -> bool:
        """Whether the clock may be locked for it."""
        return self._held

    def hold(self) -> None:
        """Goes on or begins."""
        self._held = True

    def order(self, wish: Wish) -> bool:
        """Has the clock ordered, and says whether it will be: nothing where it isn't held, however late a wish comes
        from another rank's thread, nor where the clock is still being released."""
        with self._lock:
            return self._held and self._setter.wish(wish)

    def end(self, end: End) -> None:
        """Has the clock reset; nothing where it isn't held."""
        with self._lock:
            if not self._held:
                return
            self._held = False
            self._setter.release()
        log.log(logging.DEBUG if end.is_usual else logging.INFO, "%s: lease ended, %s", self._holder, end)
        self._on_end(end)
