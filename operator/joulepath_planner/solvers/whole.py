"""The best whole clocks there are, where few groups share the clocks of many instructions.

The same cutting planes with all options of a group instead of its hull, and none in part: each group takes one of the
steps that lead from its first option to each other one, or none. HiGHS's branch and bound solves that for the paths
that are known; the path that is then most too long is added, until none is. What is left is the cheapest choice that
keeps the period: groups are few, so that a second is enough where trying all would take centuries.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from joulepath_planner.graph.graph import Graph
from joulepath_planner.graph.options import Options
from joulepath_planner.solvers.cuts import CuttingPlanes
from joulepath_planner.solvers.ladder import Ladder

__all__ = ["WholeClocks"]

_MOST_STEPS: Final = 900
"""Of all groups together: with more, branch and bound may take minutes."""
_MOST_NODES: Final = 200
"""Of each branch and bound. Its effort is counted, not timed: the same problem, the same plan."""
_MOST_ROUNDS: Final = 10
_SAME: Final = 1e-9
"""Relative: joules that differ by less are the same."""
_EXACT_S: Final = 1e-9
"""How much too long a path may seem."""


class WholeClocks(CuttingPlanes):
    """As `CuttingPlanes`, of whole clocks."""

    def __init__(
        self, graph: Graph, groups: Sequence[Sequence[int]], options: Sequence[Options], idle_w: float
    ) -> None:
        self._begin(graph, Ladder.of(graph, groups, options, whole=True), idle_w)
        steps = np.arange(self._period + 1, self._period + 1 + len(self._ladder.width_s), dtype=np.int32)
        self._of_group = [steps[first:end] for first, end in pairwise(self._ladder.ends)]
        for columns in self._of_group:
            if len(columns) > 1:
                self._solver.addRow(-np.inf, 1.0, len(columns), columns, np.ones(len(columns)))

    def choose(self, at_most_s: float, at_least_s: float, known_j: float) -> list[int] | None:
        """The option of each group in the cheapest choice with the iteration time in [at_least_s, at_most_s], or in a
        good one where branch and bound doesn't end; None where it finds none.

        known_j: what some choice costs, waits included: options that only dearer ones have are left out.

        Raises:
            PlanningError: There is none.
            SolverError: The solver failed.
        """
        if len(self._ladder.width_s) > _MOST_STEPS:
            return None
        least = self.solve(at_most_s, at_least_s)  # mixtures are quick to find most of the paths with
        self._solver.make_whole(np.concatenate(self._of_group), known_j * (1 + _SAME) - least.energy_j)
        for _ in range(_MOST_ROUNDS):
            values = self._solver.whole(self._period, at_most_s, at_least_s, _MOST_NODES)
            if values is None:
                break
            if not self._cut(values, _EXACT_S):
                return [int(np.argmax(np.append(0.5, values[columns]))) for columns in self._of_group]
        return None
