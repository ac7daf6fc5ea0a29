"""The linear program: least effective energy for an iteration time, on the convex hull.

Every group starts at its least time and buys seconds step by step along its hull; a step of seconds costs its slope
(negative: joules saved). As the slopes ascend, a solver fills the steps in order, so that the value is the hull's.
Any plan of supported clocks is a feasible point, so the value is a **lower bound** for all of them.

The iteration time is a column of its own, with the blocking power of all ranks as its cost: fixing its bounds gives
a point of the frontier, leaving it free up to a deadline gives the least energy by that deadline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import highspy
import numpy as np

from joulepath_planner.graph import Graph
from joulepath_planner.options import Options

SOLVER_TOLERANCE_S = 1e-6
"""How exact the solver's times are."""


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


class _Quiet(highspy.Highs):  # type: ignore[misc]
    """The solver without its callbacks: unused here, and starting them prints a banner to standard output."""

    def enableCallbacks(self) -> None:  # noqa: N802 (the library's name)
        self.silent()


class Program:
    """One model, solved again and again for other iteration times; each solve starts from the last one's basis."""

    def __init__(
        self, graph: Graph, groups: Sequence[Sequence[int]], options: Sequence[Options], power_w: float
    ) -> None:
        size = len(graph.instructions)
        self._period = size  # columns: starts, the period, then the steps of each group
        column_of_group: list[range] = []
        lower, upper, costs = [0.0] * (size + 1), [np.inf] * (size + 1), [0.0] * (size + 1)
        upper[0] = 0.0
        costs[self._period] = power_w * (1 + max(graph.rank))
        least = [0.0] * size
        steps: list[list[tuple[int, float]]] = [[] for _ in range(size)]
        self._constant_j = 0.0
        for members, option in zip(groups, options, strict=True):
            keys = [(graph.instructions[node].stage, graph.instructions[node].kind) for node in members]
            at = [option.durations(choice, keys) for choice in option.hull]
            self._constant_j += option.effective_j[option.hull[0]]
            for node, duration in zip(members, at[0], strict=True):
                least[node] = duration
            first = len(costs)
            for step, (here, there) in enumerate(zip(option.hull, option.hull[1:], strict=False)):
                width = option.total_s[there] - option.total_s[here]
                column = len(costs)
                lower.append(0.0)
                upper.append(width)
                costs.append((option.effective_j[there] - option.effective_j[here]) / width)
                for member, node in enumerate(members):
                    steps[node].append((column, (at[step + 1][member] - at[step][member]) / width))
            column_of_group.append(range(first, len(costs)))
        self._columns = column_of_group
        self._solver = _model(graph, self._period, least, steps, np.array(lower), np.array(upper), np.array(costs))

    def solve(self, at_most_s: float, at_least_s: float = 0.0) -> Solution:
        """Least energy with the iteration time in [at_least_s, at_most_s]; raises `PlanningError` if there is none."""
        self._solver.changeColBounds(self._period, at_least_s, at_most_s)
        self._solver.run()
        status = self._solver.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal:
            raise PlanningError(
                f"no plan has an iteration time of at most {at_most_s:.6f} s (solver: {status.name[1:]}); "
                "ask for a longer deadline."
            )
        solution = self._solver.getSolution()
        values = solution.col_value
        return Solution(
            period_s=values[self._period],
            energy_j=self._constant_j + self._solver.getInfo().objective_function_value,
            extra_s=tuple(sum(values[columns.start : columns.stop]) for columns in self._columns),
            slope_w=solution.col_dual[self._period],
        )


def _model(
    graph: Graph,
    period: int,
    least: Sequence[float],
    steps: Sequence[Sequence[tuple[int, float]]],
    lower: np.ndarray,
    upper: np.ndarray,
    costs: np.ndarray,
) -> highspy.Highs:
    starts, bound = [0], list[float]()
    index, value = list[int](), list[float]()
    for wrap, edges in ((False, graph.edges), (True, graph.wraps)):
        for source, target, gap in edges:
            row = {target: 1.0}
            row[source] = row.get(source, 0.0) - 1.0
            row.update({column: -ratio for column, ratio in steps[source]})
            if wrap:
                row[period] = 1.0
            entries = {column: entry for column, entry in row.items() if entry}
            index += entries.keys()
            value += entries.values()
            starts.append(len(index))
            bound.append(least[source] + gap)
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(costs), len(bound)
    model.col_cost_, model.col_lower_, model.col_upper_ = costs, lower, upper
    model.row_lower_, model.row_upper_ = np.array(bound), np.full(len(bound), np.inf)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.array(starts)
    model.a_matrix_.index_ = np.array(index)
    model.a_matrix_.value_ = np.array(value)
    solver = _Quiet()
    solver.setOptionValue("threads", 1)
    solver.passModel(model)
    return solver
