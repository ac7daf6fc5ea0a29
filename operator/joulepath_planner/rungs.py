"""A plan for T is a plan for every longer T: which of the drafts for shorter times is taken for one.

Drafts are good, not the best, so that one for a longer time may well cost more than one for a shorter time. Times from
T_min to T*_fixed are the rungs of a ladder, some of them landings. For a landing the cheapest draft of all landings up
to it is taken. For a rung between two landings the cheapest of those between, up to it, that cost no less than what is
taken for the landing above, or else what is taken for the landing below. So cost never rises: within a flight there is
ever more to choose from, and what is taken for the next landing costs no more than any of it. Only few drafts have to
be made for that, as those for times whose bound is above the cheapest known one can't be the cheapest.

A deadline between two rungs has what is taken for the one above, if that is done in time, else for the one below.

A draft depends on its own time alone: the same for whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Final

from joulepath_planner.clocks.repair import TOLERANCE
from joulepath_planner.draft import Draft, Drafting
from joulepath_planner.solvers.solution import Solution

__all__ = ["LANDING", "RUNGS", "Rungs", "taken"]

LANDING: Final = 64
"""Every so many rungs."""
RUNGS: Final = 32 * LANDING
"""The points of a frontier of 33 are landings."""
_STEP: Final = 1e-4
"""Relative: rungs that save less than this, on average, are passed over."""
_GAPS: Final = 8
"""And those that save less than so much of how far the drafts are above the bound."""
_NEAR: Final = 6
"""Rungs drafted with the one that is asked for."""
_TOGETHER: Final = 64
"""Deadlines rounded at once."""


def taken(wanted: int, cost: Callable[[int], float], bound: Callable[[int, int], float]) -> int:
    """The rung whose draft is taken for the wanted one: itself or one below.

    cost: of a rung's own draft. bound: of (a rung, a higher one whose draft is known), what no plan for the former
    costs less than, which rises from rung to rung downwards.
    """
    below = wanted - wanted % LANDING
    best = _landed(below, cost, bound)
    if wanted == below:
        return best
    least = cost(_landed(below + LANDING, cost, bound))
    stride, last = stride_of(below, cost, bound), None
    for rung in range(wanted - wanted % stride, below, -stride):
        if last is not None and bound(rung, last) >= cost(best):
            break
        if least <= cost(rung) < cost(best):
            best = rung
        last = rung
    return best


def stride_of(below: int, cost: Callable[[int], float], bound: Callable[[int, int], float]) -> int:
    """How far apart the rungs are that are looked at in the flight above this landing: they save enough each."""
    best, above = _landed(below, cost, bound), below + LANDING
    saved, gap = cost(best) - cost(_landed(above, cost, bound)), cost(below) - bound(below, below)
    stride = LANDING
    while stride > 1 and saved * stride > LANDING * max(cost(best) * _STEP, gap / _GAPS):
        stride //= 2
    return stride


def _landed(landing: int, cost: Callable[[int], float], bound: Callable[[int, int], float]) -> int:
    best = landing
    for lower in range(landing - LANDING, -1, -LANDING):
        if bound(lower, lower + LANDING) >= cost(best):
            break
        if cost(lower) <= cost(best):
            best = lower
    return best


class Rungs:
    """Drafts of instruction granularity, or default clocks, of a pipeline for any deadline."""

    def __init__(self, drafting: Drafting) -> None:
        self._drafting = drafting
        self._known: dict[int, Draft] = {}

    def drafts(self, deadlines_s: Sequence[float]) -> list[Draft]:
        """For each deadline one that never costs more than one for a shorter deadline.

        It may where the pipeline is large or not plain.
        """
        if self._drafting.is_large or not self._drafting.is_plain:
            return self._drafting.fine(deadlines_s, [self.solution(deadline) for deadline in deadlines_s])
        wanted = [(self._wanted(deadline), deadline) for deadline in deadlines_s]
        asked = [(rung, self._above(rung, deadline)) for rung, deadline in wanted]
        self._make(landing for rungs in asked for rung in rungs for landing in _landings(rung))
        self._make(near for rungs in asked for rung in rungs for near in self._near(rung))
        return [self._best(*rungs, deadline) for rungs, deadline in zip(asked, deadlines_s, strict=True)]

    def solution(self, time_s: float) -> Solution:
        """The linear program's optimum; at a rung's time it doesn't depend on what was solved before."""
        rung = self._rung(time_s)
        if rung and self._drafting.remembers and self._time_s(rung) == time_s:
            before_s = self._time_s(_solved_before(rung))
            self.solution(before_s)
            return self._drafting.bound(time_s, before_s)
        return self._drafting.bound(time_s)

    def _make(self, rungs: Iterable[int]) -> None:
        missing = sorted(set(rungs) - self._known.keys())
        for first in range(0, len(missing), _TOGETHER):
            these = missing[first : first + _TOGETHER]
            times = [self._time_s(rung) for rung in these]
            drafts = self._drafting.fine(times, [self.solution(time) for time in times])
            self._known.update(zip(these, drafts, strict=True))

    def _above(self, rung: int, deadline_s: float) -> int:
        """The rung above, where the deadline is between the two; else the same."""
        later = deadline_s > self._time_s(rung) * (1 + TOLERANCE)
        return rung + 1 if later and self._span_s > 0 and rung == self._rung(deadline_s) < RUNGS else rung

    def _best(self, rung: int, above: int, deadline_s: float) -> Draft:
        draft = self._held(taken(above, self._cost_j, self._bound_j), deadline_s)
        if above > rung and draft.replay.iteration_time_s > deadline_s * (1 + TOLERANCE):
            return self._held(taken(rung, self._cost_j, self._bound_j), deadline_s)
        return draft

    def _near(self, rung: int) -> range:
        """Rungs that are looked at with this one, and lower ones."""
        below = rung - rung % LANDING
        stride = stride_of(below, self._cost_j, self._bound_j) if rung > below else LANDING
        first = rung - rung % stride
        return range(max(first - _NEAR * stride, below + stride), first + 1, stride)

    def _held(self, rung: int, deadline_s: float) -> Draft:
        """A rung's draft; if the time is fixed, with waits until then."""
        draft = self._known[rung]
        if not self._drafting.fixed or abs(self._time_s(rung) - deadline_s) <= deadline_s * TOLERANCE:
            return draft
        return self._drafting.held(draft, deadline_s)

    def _wanted(self, deadline_s: float) -> int:
        """The last rung that is no later; of those from T*_free on, where a longer time doesn't pay, one landing."""
        rung = self._rung(deadline_s)
        if rung and not self._drafting.fixed:
            self.solution(self._time_s(0))
            free = self._rung(self.solution(self._time_s(RUNGS)).period_s)
            rung = min(rung, free - free % LANDING + LANDING)
        return rung

    @cached_property
    def _span_s(self) -> float:
        return self._drafting.t_fixed_s - self._drafting.problem.t_min_s

    def _time_s(self, rung: int) -> float:
        return self._drafting.problem.t_min_s + self._span_s * rung / RUNGS

    def _rung(self, deadline_s: float) -> int:
        """The last rung that is no later."""
        t_min_s = self._drafting.problem.t_min_s
        if self._span_s <= t_min_s * TOLERANCE:
            return 0
        return min(RUNGS, int((deadline_s - t_min_s) / self._span_s * RUNGS + TOLERANCE))

    def _cost_j(self, rung: int) -> float:
        """Without waits until a time that is fixed."""
        self._make([rung])
        return self._known[rung].replay.energy_j - self._waits_j(rung)

    def _bound_j(self, rung: int, higher: int) -> float:
        """The tangent of the frontier, which is convex; without waits as in `_cost_j`."""
        time_s, higher_s = self._time_s(rung), self._time_s(higher)
        known = self.solution(higher_s)
        slope_w = known.slope_w if self._drafting.fixed else min(0.0, known.slope_w)
        return known.energy_j + slope_w * (time_s - higher_s) - self._waits_j(rung)

    def _waits_j(self, rung: int) -> float:
        return self._drafting.problem.idle_w * self._time_s(rung) if self._drafting.fixed else 0.0


def _landings(rung: int) -> set[int]:
    """Those below and above."""
    below = rung - rung % LANDING
    return {below, below + LANDING} if rung > below else {below}


def _solved_before(rung: int) -> int:
    """The lower rung whose linear program this one's starts from, whatever else was solved."""
    below = rung - rung % LANDING
    return 0 if rung == RUNGS else below if below < rung else rung - LANDING
