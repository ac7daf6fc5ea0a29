"""When a clock that was ordered came in force, from looks at the SM clock. Pure.

A GPU under a power cap never gets to the clock that was ordered, and its clock isn't still. So the goal is where the
clock *settles* (the median of the last third of the looks), and the switch is in force with the first look that is
within a step of the GPU's grid of it, or within what the settled clock varies by, if that is more. A switch that is
smaller than that can't be told from noise, and one that came between two looks far apart was seen too blurredly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

__all__ = ["Looks", "Switch", "switch_of"]

_BLUR_S: Final = 0.002
_BLUR: Final = 0.2
_FEWEST_LOOKS: Final = 9

Looks = Sequence[tuple[float, int]]
"""(seconds since the order, SM clock in MHz), in order of time."""


@dataclass(frozen=True, slots=True)
class Switch:
    """One switch: where the clock settled, and after how many seconds it was there; None where that wasn't seen."""

    settled_mhz: int
    lag_s: float | None


def switch_of(before_mhz: int, looks: Looks, step_mhz: int) -> Switch | None:
    """Reads a switch off its looks; None where there are too few of them.

    Args:
        before_mhz: The clock that was in force at the order.
        looks: From the order until the clock has surely settled.
        step_mhz: Of the GPU's grid of clocks.
    """
    if len(looks) < _FEWEST_LOOKS:
        return None
    tail = sorted(mhz for _, mhz in looks[-(len(looks) // 3) :])
    goal = int(median(tail))
    near = max(step_mhz, tail[-1] - tail[0])
    if abs(goal - before_mhz) <= 2 * near:
        return Switch(goal, None)
    up = goal > before_mhz
    last_s = 0.0
    for at_s, mhz in looks:
        if mhz >= goal - near if up else mhz <= goal + near:
            sharp = at_s - last_s <= max(_BLUR_S, _BLUR * at_s)
            return Switch(goal, at_s if sharp else None)
        last_s = at_s
    return Switch(goal, None)
