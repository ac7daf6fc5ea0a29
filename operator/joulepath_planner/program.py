"""The linear program: least effective energy for an iteration time, on the convex hull.

Every group starts at its least time and buys seconds step by step along its hull; a step of seconds costs its slope
(negative: joules saved). As the slopes ascend, a solver fills the steps in order, so that the value is the hull's.
Any plan of supported clocks is a feasible point, so the value is a **lower bound** for all of them.

The iteration time is a column of its own, with the blocking power of all GPUs as its cost: fixing its bounds gives
a point of the frontier, leaving it free up to a deadline gives the least energy by that deadline.

Small programs, and those of coarse groups, are solved by HiGHS's simplex method, which starts from the last solution;
large ones of single instructions by an interior-point method of our own, with a bound proven from its prices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import highspy
import numpy as np

from joulepath_planner.graph import Graph
from joulepath_planner.options import Options
from joulepath_planner.relaxation import Ints, Relaxation

SOLVER_TOLERANCE_S = 1e-6
"""How exact the solver's times are."""

_LARGE = 500
"""Instructions from which on the interior-point method is the faster one, even where simplex starts from a solution."""

_MOST_STEPS, _LEAST_STEPS = 400_000, 12
"""Steps of all instructions together to solve with, and of one in any case; the bound is proven with all there are.
With 12 instead of 37 of a smooth profile it comes out 0.01% lower, with 16 0.006%."""


class PlanningError(RuntimeError):
    """No plan exists for what was asked, such as a deadline under the least iteration time."""


@dataclass(frozen=True, slots=True)
class Solution:
    """energy_j: blocking energy until the period's end included; extra_s: seconds bought by each group, in total;
    slope_w: by how much energy_j grows per second of iteration time, at a breakpoint between the slopes beside it."""

    period_s: float
    energy_j: float
    extra_s: tuple[float, ...]
    slope_w: float


class Program(Protocol):
    """One model, solved again and again for other iteration times."""

    def solve(self, at_most_s: float, at_least_s: float = 0.0) -> Solution:
        """Least energy with the iteration time in [at_least_s, at_most_s]; raises `PlanningError` if there is none."""


def program(
    graph: Graph, groups: Sequence[Sequence[int]], options: Sequence[Options], idle_w: float, *, large: int = _LARGE
) -> Program:
    """The program of these groups. idle_w: watts of all GPUs together when they wait.

    large: from how many groups on the interior-point method is used, if each group is one instruction.
    """
    alone = all(group == [node] for node, group in enumerate(groups))
    if alone and len(groups) >= large and all(last != first for last, first, _ in graph.wraps):
        return _Interior(graph, groups, options, idle_w)
    return _Simplex(graph, groups, options, idle_w)


class _Interior:
    def __init__(
        self, graph: Graph, groups: Sequence[Sequence[int]], options: Sequence[Options], idle_w: float
    ) -> None:
        # Only here: what it imports takes longer to load than a small pipeline to plan.
        from joulepath_planner.interior import InteriorPointMethod

        self._relaxation = Relaxation.of(graph, options, idle_w)
        most = max(_LEAST_STEPS, _MOST_STEPS // len(groups))
        self._method = InteriorPointMethod(self._relaxation.coarser(options, most))
        self._otherwise = graph, groups, options, idle_w

    def solve(self, at_most_s: float, at_least_s: float = 0.0) -> Solution:
        try:
            found = self._with(at_most_s, at_most_s)
            if found.slope_w > 0 and at_least_s < at_most_s:  # less time would cost less
                found = self._with(at_least_s, at_most_s)
                if found.period_s < at_least_s:
                    found = self._with(at_least_s, at_least_s)
        except ArithmeticError:
            return _Simplex(*self._otherwise).solve(at_most_s, at_least_s)
        return found

    def _with(self, at_least_s: float, at_most_s: float) -> Solution:
        point = self._method.solve(at_most_s, free=at_least_s < at_most_s)
        energy, slope = self._relaxation.bound(point.flow_w, at_least_s, at_most_s)
        return Solution(point.period_s, energy, tuple(point.extra_s.tolist()), slope)


class _Quiet(highspy.Highs):  # type: ignore[misc]
    """The solver without its callbacks: unused here, and starting them prints a banner to standard output."""

    def enableCallbacks(self) -> None:  # noqa: N802 (the library's name)
        self.silent()


class _Simplex:
    def __init__(
        self, graph: Graph, groups: Sequence[Sequence[int]], options: Sequence[Options], idle_w: float
    ) -> None:
        size = len(graph.instructions)
        self._period = size  # columns: starts, the period, then the steps of each group
        self._constant_j = sum(option.effective_j[option.hull[0]] for option in options)
        least, nodes, columns, ratios = np.zeros(size), list[int](), list[int](), list[float]()
        widths, slopes, self._ends = list[float](), list[float](), [0]
        for members, option in zip(groups, options, strict=True):
            hull = list(option.hull)
            times = np.array(option.times_s)[hull]
            width = np.diff(np.array(option.total_s)[hull])
            first = size + 1 + len(widths)
            ratios_of = (np.diff(times, axis=0).T / width).tolist()
            by_key = {key: (times[0, place], ratios_of[place]) for place, key in enumerate(option.keys)}
            widths += width.tolist()
            slopes += (np.diff(np.array(option.effective_j)[hull]) / width).tolist()
            self._ends.append(len(widths))
            for node in members:
                one = graph.instructions[node]
                least[node], ratio = by_key[one.stage, one.kind]
                nodes += [node] * len(ratio)
                columns += range(first, first + len(ratio))
                ratios += ratio
        source, target, gap = (np.array(column) for column in zip(*graph.edges, *graph.wraps, strict=True))
        rows = np.arange(len(source))
        apart, wrap = source != target, rows >= len(graph.edges)
        row, step = _join(source, np.array(nodes, dtype=np.intp), size)
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = size + 1 + len(widths), len(source)
        model.col_cost_ = np.concatenate([np.zeros(size), [idle_w], slopes])
        model.col_lower_ = np.zeros(model.num_col_)
        model.col_upper_ = np.concatenate([[0.0], np.full(size, np.inf), widths])
        model.row_lower_, model.row_upper_ = least[source] + gap, np.full(len(source), np.inf)
        row = np.concatenate([rows[apart], rows[apart], rows[wrap], row])
        order = np.argsort(row, kind="stable")
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_ = np.searchsorted(row[order], np.arange(len(source) + 1))
        model.a_matrix_.index_ = np.concatenate(
            [target[apart], source[apart], np.full(wrap.sum(), size), np.array(columns, dtype=np.intp)[step]]
        )[order]
        ones = np.ones(apart.sum())
        model.a_matrix_.value_ = np.concatenate([ones, -ones, np.ones(wrap.sum()), -np.array(ratios)[step]])[order]
        self._solver = _Quiet()
        self._solver.setOptionValue("threads", 1)
        if size < _LARGE:
            self._solver.setOptionValue("presolve", "off")  # takes longer than what it spares
        self._solver.passModel(model)

    def solve(self, at_most_s: float, at_least_s: float = 0.0) -> Solution:
        self._solver.changeColBounds(self._period, at_least_s, at_most_s)
        self._solver.run()
        status = self._solver.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal:
            raise PlanningError(
                f"no plan has an iteration time of at most {at_most_s:.6f} s (solver: {status.name[1:]}); "
                "ask for a longer deadline."
            )
        solution = self._solver.getSolution()
        values = np.array(solution.col_value)
        bought = np.append(0.0, np.cumsum(values[self._period + 1 :]))[self._ends]
        return Solution(
            period_s=float(values[self._period]),
            energy_j=self._constant_j + self._solver.getInfo().objective_function_value,
            extra_s=tuple(np.diff(bought).tolist()),
            slope_w=solution.col_dual[self._period],
        )


def _join(source: Ints, nodes: Ints, size: int) -> tuple[Ints, Ints]:
    """All pairs (row, step) where the step is of the row's source; nodes: whose each step is."""
    order = np.argsort(nodes, kind="stable")
    counts = np.bincount(nodes, minlength=size)
    of_row = counts[source]
    row = np.repeat(np.arange(len(source)), of_row)
    place = np.arange(len(row)) - np.repeat(np.cumsum(of_row) - of_row, of_row)
    return row, order[np.repeat((np.cumsum(counts) - counts)[source], of_row) + place]
