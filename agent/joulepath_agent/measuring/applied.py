"""What an iteration ran: the arm, the block and the clock that its measurements belong to."""

from __future__ import annotations

from dataclasses import dataclass

from joulepath_agent.gpus.wish import DEFAULT
from joulepath_crds import Arm

__all__ = ["Applied"]


@dataclass(frozen=True, slots=True)
class Applied:
    """What an iteration ran."""

    arm: Arm
    block: int = -1
    hash: str = ""
    clock_mhz: int | None = DEFAULT
    """The one clock that was held; None where it changed within the iteration."""
    length: int = 0
    """Iterations of the block."""
