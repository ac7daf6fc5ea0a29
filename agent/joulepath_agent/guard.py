"""The fast guard: a plan that makes iterations longer than promised is stopped within a few iterations."""

from __future__ import annotations

import statistics
from collections import deque
from typing import Final

from joulepath_crds import JobPlanSpec

__all__ = ["Guard"]

_WINDOW: Final = 5
_MARGIN: Final = 1.05


class Guard:
    """Watches the periods of plan iterations of one plan."""

    def __init__(self) -> None:
        self._periods_s: deque[float] = deque(maxlen=_WINDOW)

    def trips(self, plan: JobPlanSpec, control_time_s: float, period_s: float) -> str | None:
        """Takes the period of one more plan iteration, in seconds; the reason if the plan has to stop.

        The bound is the plan's own iteration time, or, where it doesn't say one, that of control iterations (0 while
        unknown: then nothing can be said), both with a margin of 5%.
        """
        self._periods_s.append(period_s)
        bound_s = (plan.plan_iteration_time_s or control_time_s) * _MARGIN
        if bound_s <= 0 or len(self._periods_s) < _WINDOW:
            return None
        median_s = statistics.median(self._periods_s)
        if median_s <= bound_s:
            return None
        return f"GuardTripped: the last {_WINDOW} plan iterations took {median_s:.4g} s, the bound is {bound_s:.4g} s"
