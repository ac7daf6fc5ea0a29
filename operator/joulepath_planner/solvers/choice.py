"""The linear program: least effective energy for an iteration time, on the convex hull.

Every group starts at its least time and buys seconds step by step along its hull; a step of seconds costs its slope
(negative: joules saved). As the slopes ascend, a solver fills the steps in order, so that the value is the hull's.
Any plan of supported clocks is a feasible point, so the value is a **lower bound** for all of them.

The iteration time is a column of its own, with the blocking power of all GPUs as its cost: fixing its bounds gives
a point of the frontier, leaving it free up to a deadline gives the least energy by that deadline.

It is solved in one of three ways: by simplex, which starts from the last solution, where it is small; for many single
instructions by an interior-point method of our own, with a bound proven from its prices; and where few groups share
many instructions by cutting planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from joulepath_planner.graph.graph import Graph
from joulepath_planner.graph.options import Options
from joulepath_planner.solvers.cuts import CuttingPlanes
from joulepath_planner.solvers.relaxation import Relaxation
from joulepath_planner.solvers.simplex import Simplex
from joulepath_planner.solvers.solution import Program, Solution

__all__ = ["program"]

_LARGE: Final = 500
"""Instructions from which on the interior-point method is the faster one, even where simplex starts from a solution."""

_SHARED: Final = 8
"""Instructions of a group, on average, from which on cutting planes are the fastest."""

_MOST_STEPS: Final = 400_000
"""Steps of all instructions together to solve with; the bound is proven with all there are."""
_LEAST_STEPS: Final = 12
"""Steps of one instruction to solve with in any case.
With 12 instead of 37 of a smooth profile it comes out 0.01% lower, with 16 0.006%."""


def program(
    graph: Graph, groups: Sequence[Sequence[int]], options: Sequence[Options], idle_w: float, *, large: int = _LARGE
) -> Program:
    """The program of these groups. idle_w: watts of all GPUs together when they wait.

    large: from how many groups on the interior-point method is used, if each group is one instruction.
    """
    alone = all(group == [node] for node, group in enumerate(groups))
    steps = any(len(option.hull) > 1 for option in options)
    if alone and steps and len(groups) >= large and all(last != first for last, first, _ in graph.wraps):
        return _Interior(graph, groups, options, idle_w)
    if len(groups) * _SHARED <= len(graph.instructions):
        return CuttingPlanes(graph, groups, options, idle_w)
    return Simplex(graph, groups, options, idle_w)


class _Interior:
    def __init__(
        self, graph: Graph, groups: Sequence[Sequence[int]], options: Sequence[Options], idle_w: float
    ) -> None:
        # Only here: what it imports takes longer to load than a small pipeline to plan.
        from joulepath_planner.solvers.interior import InteriorPointMethod

        self._relaxation = Relaxation.of(graph, options, idle_w)
        most = max(_LEAST_STEPS, _MOST_STEPS // len(groups))
        self._method = InteriorPointMethod(self._relaxation.coarser(options, most))
        self._otherwise = graph, groups, options, idle_w

    def solve(self, at_most_s: float, at_least_s: float = 0.0, after_s: float | None = None) -> Solution:
        try:
            found = self._with(at_most_s, at_most_s)
            if found.slope_w > 0 and at_least_s < at_most_s:  # less time would cost less
                found = self._with(at_least_s, at_most_s)
                if found.period_s < at_least_s:
                    found = self._with(at_least_s, at_least_s)
        except ArithmeticError:
            return Simplex(*self._otherwise).solve(at_most_s, at_least_s)
        return found

    def _with(self, at_least_s: float, at_most_s: float) -> Solution:
        point = self._method.solve(at_most_s, free=at_least_s < at_most_s)
        energy, slope = self._relaxation.bound(point.flow_w, at_least_s, at_most_s)
        return Solution(point.period_s, energy, tuple(point.extra_s.tolist()), slope)
