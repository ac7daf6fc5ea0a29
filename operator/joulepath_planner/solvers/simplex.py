"""The linear program by HiGHS's simplex method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import highspy
import numpy as np

from joulepath_planner.arrays import Ints
from joulepath_planner.graph.graph import Graph
from joulepath_planner.graph.options import Options
from joulepath_planner.solvers.ladder import Ladder
from joulepath_planner.solvers.solution import Solution, Solver

__all__ = ["Simplex"]

_PRESOLVED: Final = 500
"""Instructions from which on presolve spares more than it takes."""


class Simplex:
    """The program as it stands, with a start for every instruction; each solution starts from the last one's basis."""

    def __init__(
        self, graph: Graph, groups: Sequence[Sequence[int]], options: Sequence[Options], idle_w: float
    ) -> None:
        size = len(graph.instructions)
        self._period = size  # columns: starts, the period, then the steps of each group
        self._ladder = ladder = Ladder.of(graph, groups, options)
        source, target, gap = (np.array(column) for column in zip(*graph.edges, *graph.wraps, strict=True))
        rows = np.arange(len(source))
        apart, wrap = source != target, rows >= len(graph.edges)
        row, entry = _join(ladder.part_of[source], ladder.part)
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = size + 1 + len(ladder.width_s), len(source)
        model.col_cost_ = np.concatenate([np.zeros(size), [idle_w], ladder.slope_w])
        # Starts are counted from the first node's, and some ranks begin before it.
        model.col_lower_ = np.concatenate([[0.0], np.full(size - 1, -np.inf), np.zeros(1 + len(ladder.width_s))])
        model.col_upper_ = np.concatenate([[0.0], np.full(size, np.inf), ladder.width_s])
        model.row_lower_, model.row_upper_ = ladder.least_s[ladder.part_of[source]] + gap, np.full(len(source), np.inf)
        row = np.concatenate([rows[apart], rows[apart], rows[wrap], row])
        order = np.argsort(row, kind="stable")
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_ = np.searchsorted(row[order], np.arange(len(source) + 1))
        model.a_matrix_.index_ = np.concatenate(
            [target[apart], source[apart], np.full(wrap.sum(), size), size + 1 + ladder.step[entry]]
        )[order]
        ones = np.ones(apart.sum())
        model.a_matrix_.value_ = np.concatenate([ones, -ones, np.ones(wrap.sum()), -ladder.ratio[entry]])[order]
        self._solver = Solver(presolve=size >= _PRESOLVED)
        self._solver.passModel(model)
        self._bases: dict[float, highspy.HighsBasis] = {}

    def solve(self, at_most_s: float, at_least_s: float = 0.0, after_s: float | None = None) -> Solution:
        """As `Program.solve`."""
        if after_s is not None:
            self._solver.clearSolver()
            self._solver.setBasis(self._bases[after_s])
        values, joules, slope = self._solver.optimum(self._period, at_most_s, at_least_s)
        self._bases[at_most_s] = self._solver.getBasis()
        return self._ladder.solution(values[self._period], values[self._period + 1 :], joules, slope)


def _join(parts: Ints, of_entry: Ints) -> tuple[Ints, Ints]:
    """All pairs (row, entry) of the same part; parts: of each row, of_entry: of each entry, in order."""
    first, last = (np.searchsorted(of_entry, parts, side=side) for side in ("left", "right"))
    counts = last - first
    row = np.repeat(np.arange(len(parts)), counts)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts - first, counts)
