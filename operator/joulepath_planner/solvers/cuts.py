"""The linear program where few groups share the clocks of many instructions: by cutting planes.

Its variables are what the groups buy, the period, and when each rank's first instruction starts. That an iteration
keeps the period says of every path through it, from the first instruction of a rank to the last one of another (or the
same): it ends no later than a period after that rank's first start. Paths are too many to be written down, and few of
them matter; so the program is solved with those that are known, the path that is then most too long is found by one
pass over the graph and added, until none is (Kelley's method). Dropping constraints only lowers the optimum, so its
value stays a bound wherever this ends.
"""

from __future__ import annotations

from collections.abc import Sequence

import highspy
import numpy as np

from joulepath_planner.arrays import Floats, Ints, sums
from joulepath_planner.graph.graph import Graph
from joulepath_planner.graph.network import RESOLUTION_S, Network
from joulepath_planner.graph.options import Options
from joulepath_planner.solvers.ladder import Ladder
from joulepath_planner.solvers.solution import SOLVER_TOLERANCE_S, Solution, Solver

__all__ = ["CuttingPlanes"]


class CuttingPlanes:
    """Paths that were found stay known for the next solution."""

    def __init__(
        self,
        graph: Graph,
        groups: Sequence[Sequence[int]],
        options: Sequence[Options],
        idle_w: float,
        *,
        whole: bool = False,
    ) -> None:
        self._network = Network(graph)
        self._ladder = ladder = Ladder.of(graph, groups, options, whole=whole)
        self._part_of = ladder.part_of[self._network.nodes]
        self._period = len(graph.wraps)  # columns: starts of the first instructions, the period, then the steps
        model = highspy.HighsLp()
        model.num_col_ = self._period + 1 + len(ladder.width_s)
        model.col_cost_ = np.concatenate([np.zeros(self._period), [idle_w], ladder.slope_w])
        model.col_lower_ = np.zeros(model.num_col_)
        model.col_upper_ = np.concatenate([np.full(self._period + 1, np.inf), ladder.width_s])
        model.a_matrix_.start_ = np.zeros(model.num_col_ + 1, dtype=np.int32)
        self._solver = Solver(presolve=False)
        self._solver.passModel(model)

    def solve(self, at_most_s: float, at_least_s: float = 0.0, after_s: float | None = None) -> Solution:
        """As `Program.solve`."""
        while True:
            values, joules, slope = self._solver.optimum(self._period, at_most_s, at_least_s)
            if not self._cut(values, SOLVER_TOLERANCE_S):
                break
        return self._ladder.solution(values[self._period], values[self._period + 1 :], joules, slope)

    def _cut(self, values: Floats, tolerance_s: float) -> bool:
        """Adds the path that is most too long; False if none is by more than the tolerance."""
        network, ladder = self._network, self._ladder
        floors_s, period_s, bought_s = np.split(values, [self._period, self._period + 1])
        parts_s = ladder.least_s + sums(ladder.part, ladder.ratio * bought_s[ladder.step], len(ladder.least_s))
        starts_s, ends_s = network.starts_s(parts_s[self._part_of][:, None], floors_s[:, None])
        late_s = ends_s[network.lasts, 0] + network.wrap_gaps_s[:, 0] - period_s - floors_s
        rank = int(late_s.argmax())
        if late_s[rank] <= tolerance_s:
            return False
        path, root = self._path(int(network.lasts[rank]), starts_s[:, 0], ends_s[:, 0], floors_s)
        counts = np.bincount(self._part_of[path], minlength=len(parts_s))
        lengthens = sums(ladder.step, ladder.ratio * counts[ladder.part], len(bought_s))
        gaps_s = late_s[rank] + period_s[0] + floors_s[rank] - floors_s[root] - counts @ parts_s
        row = np.zeros(len(values))
        row[self._period], row[self._period + 1 :] = 1.0, -lengthens
        row[rank] += 1.0
        row[root] -= 1.0
        self._add(row, counts @ ladder.least_s + gaps_s)
        return True

    def _add(self, path: Floats, least_s: float) -> None:
        columns = np.flatnonzero(path)
        self._solver.addRow(least_s, np.inf, len(columns), columns.astype(np.int32), path[columns])

    def _path(self, node: int, starts_s: Floats, ends_s: Floats, floors_s: Floats) -> tuple[Ints, int]:
        """The longest path to a node, and the rank with whose first start it begins."""
        network = self._network
        sources, targets, gaps_s = network.edges
        tight = ends_s[sources] + gaps_s[:, 0] >= starts_s[targets] - RESOLUTION_S
        before = np.full(len(starts_s), -1)
        before[targets[tight]] = sources[tight]
        own = starts_s[network.firsts] <= floors_s + RESOLUTION_S
        before[network.firsts[own]] = -1
        path = [node]
        while (node := int(before[node])) >= 0:
            path.append(node)
        return np.array(path), int(np.flatnonzero(network.firsts == path[-1])[0])
