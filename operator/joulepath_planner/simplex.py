"""The linear program by HiGHS's simplex method."""

from __future__ import annotations

from collections.abc import Sequence

import highspy
import numpy as np

from joulepath_planner.graph import Graph
from joulepath_planner.options import Options
from joulepath_planner.relaxation import Ints
from joulepath_planner.solution import Solution, Solver

_PRESOLVED = 500
"""Instructions from which on presolve spares more than it takes."""


class Simplex:
    """The program as it stands, with a start for every instruction; each solution starts from the last one's basis."""

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
        # Starts are counted from the first node's, and some ranks begin before it.
        model.col_lower_ = np.concatenate([[0.0], np.full(size - 1, -np.inf), np.zeros(1 + len(widths))])
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
        self._solver = Solver(presolve=size >= _PRESOLVED)
        self._solver.passModel(model)

    def solve(self, at_most_s: float, at_least_s: float = 0.0) -> Solution:
        """As `Program.solve`."""
        values, joules, slope = self._solver.optimum(self._period, at_most_s, at_least_s)
        bought = np.append(0.0, np.cumsum(values[self._period + 1 :]))[self._ends]
        return Solution(float(values[self._period]), self._constant_j + joules, tuple(np.diff(bought).tolist()), slope)


def _join(source: Ints, nodes: Ints, size: int) -> tuple[Ints, Ints]:
    """All pairs (row, step) where the step is of the row's source; nodes: whose each step is."""
    order = np.argsort(nodes, kind="stable")
    counts = np.bincount(nodes, minlength=size)
    of_row = counts[source]
    row = np.repeat(np.arange(len(source)), of_row)
    place = np.arange(len(row)) - np.repeat(np.cumsum(of_row) - of_row, of_row)
    return row, order[np.repeat((np.cumsum(counts) - counts)[source], of_row) + place]
