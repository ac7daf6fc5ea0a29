"""What an iteration ran: the arm, the block and the clock that its measurements belong to."""

from __future__ import annotations

from dataclasses import dataclass

from joulepath_rules.arms import Arm

__all__ = ["Applied"]


@dataclass(frozen=True, slots=True)
class Applied:
    """What an iteration ran."""

    arm: Arm
    block: int = -1
    hash: str = ""
    clock_mhz: int | None = 0
    """The one clock that was held, 0 being default clocks; None where it changed within the iteration."""
    length: int = 0
    """Iterations of the block."""
