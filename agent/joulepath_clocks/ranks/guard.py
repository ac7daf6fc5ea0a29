"""The fast guard: a plan that makes iterations longer than promised is stopped within a few iterations.

A stop is a question first: the next iterations run at default clocks. If they are faster, the plan is to blame; three
times in a row, and it stays off. Not sooner, for a burst of a neighbour's load may fade just when it is asked; tries
come after pauses that double. If they are not faster, the job is slow by itself (data loading, a neighbour), and the
plan resumes after a pause that doubles each time, with the time that default clocks take now as the new measure, until
it keeps its promise again. While control blocks are run, the last of them is asked first: a plan that isn't slower
than they are now isn't stopped at all.

In simulated jobs (noise 1%, 200,000 iterations for each case): a plan that is 6% slower than promised or more is
stopped after 5 of its iterations and refused after 15. Bursts of 30% that last 10 iterations and come every 100 make it
refuse a sound plan in none, bursts of 3 in 0.5 and bursts of 10 every 30 in 3 of 100,000 iterations.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass
from typing import Final, Self

from joulepath_clocks.gpus.lease import End
from joulepath_clocks.ranks.reason import Obstacle, Reason
from joulepath_rules import Plan

__all__ = ["Guard", "Verdict", "Word"]

_WINDOW: Final = 5
_MARGIN: Final = 1.05
_BLAME: Final = 1.02
_BLAMES: Final = 3
_LEAST_CONTROLS: Final = 3


@dataclass(frozen=True, slots=True)
class Word:
    """How many times as long as at default clocks an iteration may last."""

    allowed: float
    """By the user's word, which the plan carries, up to the agent's own limit."""
    told: float
    """By the plan's own times, no more than allowed."""

    @classmethod
    def of(cls, plan: Plan, most_slowdown: float) -> Self:
        """A plan's, under the agent's limit of any slowdown, a fraction. One that doesn't say what is allowed, of an
        older operator, is held to what it tells of itself."""
        told = 1.0
        if plan.control_iteration_time_s > 0 and plan.plan_iteration_time_s > 0:
            told = plan.plan_iteration_time_s / plan.control_iteration_time_s
        allowed = 1 + min(plan.asked_slowdown, most_slowdown)
        return cls(allowed, min(told, allowed))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, and why."""

    reason: Reason
    """If final, the plan is refused."""
    blocks: int | None = None
    """How many blocks to wait before the plan resumes; None while default clocks are being asked."""


class Guard:
    """Watches the periods of one plan's iterations."""

    def __init__(self) -> None:
        self._periods_s: deque[float] = deque(maxlen=_WINDOW)
        self._suspect_s = 0.0
        """Median of the plan iterations that are being compared with default clocks; 0 if none are."""
        self._settled = False
        """Whether the first iteration at default clocks is over."""
        self._slow_control_s = 0.0
        """What default clocks took when the job was slow by itself; 0 if it never was."""
        self._controls: deque[tuple[int, float]] = deque(maxlen=_WINDOW)
        """Number and period of the last iterations of control blocks."""
        self._blames = 0
        """How often in a row the plan was to blame: a slow spell of the job's own may have ended just then."""
        self._trips = 0

    @property
    def asking(self) -> bool:
        """Whether default clocks are being run to see who is to blame."""
        return self._suspect_s > 0

    def control_period(self, iteration: int, period_s: float) -> None:
        """Takes the period of one more iteration of a control block, in seconds."""
        self._controls.append((iteration, period_s))

    def plan_period(
        self, plan: Plan, word: Word, control_time_s: float, iteration: int, period_s: float
    ) -> Verdict | None:
        """Takes the period of one more plan iteration, in seconds.

        The bound is the plan's own iteration time, but never more than what is allowed over default clocks as they were
        measured here: by the last control blocks, else `control_time_s` (0 while unknown). Both with a margin of 5%;
        more while default clocks take longer, too. Where neither is known, nothing can be said.
        """
        self._periods_s.append(period_s)
        own_s = self._last_control_s() or control_time_s
        known_s = [one_s for one_s in (plan.plan_iteration_time_s, own_s * word.allowed) if one_s > 0]
        if not known_s or len(self._periods_s) < _WINDOW:
            return None
        promised_s = min(known_s)
        median_s = statistics.median(self._periods_s)
        if median_s <= promised_s * _MARGIN:
            self._blames, self._slow_control_s = 0, 0.0
            return None
        control_s = max(self._slow_control_s, self._control_now_s(plan, iteration))
        promised_s = max(promised_s, control_s * word.told)
        if median_s <= promised_s * _MARGIN:
            self._blames = 0
            return None
        self._suspect_s, self._settled = median_s, False
        self._periods_s.clear()
        what = (
            f"the last {_WINDOW} plan iterations took {median_s:.4g} s, the bound is "
            f"{promised_s * _MARGIN:.4g} s; default clocks run to see whether the plan is to blame"
        )
        return Verdict(Reason(End.GUARD_TRIPPED, what))

    def default_period(self, word: Word, period_s: float) -> Verdict | None:
        """Takes the period of one more iteration at default clocks while it is `asking`, in seconds.

        The first one doesn't count: the clocks were on their way.
        """
        if not self._settled:
            self._settled = True
            return None
        self._periods_s.append(period_s)
        if len(self._periods_s) < _WINDOW:
            return None
        control_s, suspect_s = statistics.median(self._periods_s), self._suspect_s
        self._suspect_s = 0.0
        self._periods_s.clear()
        took = f"plan iterations took {suspect_s:.4g} s, then {_WINDOW} at default clocks {control_s:.4g} s"
        if suspect_s > control_s * word.told * _BLAME:
            self._blames += 1
            if self._blames == _BLAMES:
                return Verdict(Reason(End.GUARD_TRIPPED, f"{took}, {_BLAMES} times in a row", final=True))
            return Verdict(Reason(End.GUARD_TRIPPED, f"{took}: one more try"), blocks=self._blames)
        self._trips, self._blames = self._trips + 1, 0
        self._slow_control_s = control_s
        slow = Reason(Obstacle.SLOW_BY_ITSELF, f"{took}: the job is slow by itself")
        return Verdict(slow, blocks=2 ** min(self._trips, 6))

    def _last_control_s(self) -> float:
        """What the last control blocks took; 0 where there was none."""
        if len(self._controls) < _LEAST_CONTROLS:
            return 0.0
        return statistics.median(period_s for _, period_s in self._controls)

    def _control_now_s(self, plan: Plan, iteration: int) -> float:
        """The same, but 0 where that is more than two blocks ago."""
        if plan.blocks is None or not self._controls:
            return 0.0
        recent = iteration - self._controls[-1][0] <= 2 * plan.blocks.iterations
        return self._last_control_s() if recent else 0.0
