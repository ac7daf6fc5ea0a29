"""Why a rank runs at default clocks although its job has a plan."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from joulepath_clocks.gpus.lease import End

__all__ = ["Obstacle", "Reason"]


class Obstacle(StrEnum):
    """What keeps a plan from being played, and is no end of a lease."""

    ATTEMPT_MISMATCH = "AttemptMismatch"
    PLAN_UNREADABLE = "PlanUnreadable"
    HASH_MISMATCH = "HashMismatch"
    STAGE_MISSING = "StageMissing"
    ORDER_UNKNOWN = "OrderUnknown"
    GPU_REFUSED = "GpuRefused"
    SLOW_BY_ITSELF = "SlowByItself"
    PAUSED = "Paused"
    NOT_ALLOWED = "NotAllowed"
    BELOW_MIN_CLOCK = "BelowMinClock"


@dataclass(frozen=True, slots=True)
class Reason:
    """One such reason. As a text it is what reports say: `Code: message`."""

    code: End | Obstacle
    message: str
    final: bool = False
    """Whether it holds for as long as the plan does; else the plan is joined at its next block, or staged later."""

    @property
    def end(self) -> End:
        """What ended the lease, if one was held: a plan that can't be played ended that of the plan before it."""
        return self.code if isinstance(self.code, End) else End.PLAN_CHANGED

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
