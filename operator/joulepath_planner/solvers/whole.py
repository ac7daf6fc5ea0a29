"""Whole clocks for groups that share them: the best there are, or good ones where that would take long.

The cutting planes once more, with all options of a group instead of its hull, of which each group takes one. The
program mixes options; branch and bound takes from a group that mixes either those up to where it is or those beyond.
Each mixture is also rounded to faster options, and the slack that this leaves goes to what saves most, as far as all
known paths have it: most good choices come from there. Paths stay known throughout, and options that only dearer
choices have, by their reduced costs, are left out.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import count, pairwise
from typing import Final

import numpy as np

from joulepath_planner.arrays import Floats, Ints, Mask, sums
from joulepath_planner.graph.graph import Graph
from joulepath_planner.graph.options import Options
from joulepath_planner.solvers.cuts import CuttingPlanes

__all__ = ["WholeClocks"]

_MOST_SOLVED: Final = 120
"""Linear programs of a search. Its effort is counted, not timed: the same problem, the same plan."""
_MOST_WALKED: Final = 100_000
"""Instructions that a search walks through, once for each of those."""
_SAME: Final = 1e-9
"""Relative: joules that differ by less are the same."""
_EXACT_S: Final = 1e-9
"""How much too long a path may seem."""
_SHARE: Final = 1e-6
"""Of an option; less is none."""


class WholeClocks(CuttingPlanes):
    """A search among choices with the iteration time in [at_least_s, at_most_s].

    bound_j: the least that a mixture of options costs, waits included.

    Raises:
        PlanningError: There is none.
        SolverError: The solver failed.
    """

    def __init__(
        self,
        graph: Graph,
        groups: Sequence[Sequence[int]],
        options: Sequence[Options],
        idle_w: float,
        at_most_s: float,
        at_least_s: float,
    ) -> None:
        super().__init__(graph, groups, options, idle_w, whole=True)
        ends = self._ladder.ends
        self._begins, self._group = ends[:-1], np.repeat(np.arange(len(groups)), np.diff(ends))
        self._seconds = np.concatenate([one.total_s for one in options])
        self._joules = np.concatenate([one.effective_j for one in options])
        self._idle_w = idle_w
        self._paths, self._least_s = list[Floats](), list[float]()
        self._columns = np.arange(self._period + 1, self._period + 1 + ends[-1], dtype=np.int32)
        for begin, end in pairwise(ends):
            self._solver.addRow(1.0, 1.0, end - begin, self._columns[begin:end], np.ones(end - begin))
        self._solver.setOptionValue("primal_feasibility_tolerance", _EXACT_S)
        self.bound_j = self.solve(at_most_s, at_least_s).energy_j
        self._excess_j = np.array(self._solver.getSolution().col_dual)[self._columns]
        self._left = min(_MOST_SOLVED, _MOST_WALKED // len(graph.instructions))

    def choose(self, known_j: float) -> list[int] | None:
        """The options of a choice that costs less than known_j, waits included; None if none is found."""
        self._below_j, self._best = known_j * (1 - _SAME), None
        serial, every = count(), np.ones(len(self._columns), dtype=bool)
        open_ = [(self.bound_j, next(serial), every)]
        while open_ and open_[0][0] < self._below_j:
            _, _, allowed = heapq.heappop(open_)
            while found := self._mixture(allowed):
                values, bound_j = found
                shares = values[self._columns]
                faster = self._faster(shares)
                self._round(values, faster)
                sides = self._sides(shares, faster)
                if not sides:
                    break
                less, more = sorted(sides, key=lambda side: float(shares[side].sum()))
                heapq.heappush(open_, (bound_j, next(serial), allowed & ~more))
                allowed = allowed & ~less
        return self._best

    def _mixture(self, allowed: Mask) -> tuple[Floats, float] | None:
        """The columns of the cheapest mixture of these options, and what it costs; None if none is worth a look."""
        while self._left > 0:
            self._left -= 1
            worth = allowed & (self._excess_j < self._below_j - self.bound_j)
            found = self._solver.within(self._columns, worth.astype(float))
            if found is None or (bound_j := found[1] + self._ladder.constant_j) >= self._below_j:
                return None
            if not self._cut(found[0], _EXACT_S):
                return found[0], bound_j
        return None

    def _faster(self, shares: Floats) -> Ints:
        """The slowest option of each group within its mixture's seconds."""
        within = self._seconds <= self._mixed(self._seconds, shares)[self._group] + _EXACT_S
        chosen: Ints = self._begins + np.maximum(np.add.reduceat(within, self._begins, dtype=np.intp) - 1, 0)
        return chosen

    def _sides(self, shares: Floats, faster: Ints) -> tuple[Mask, Mask] | None:
        """The faster and the slower options of the group that loses most by whole ones; None if no group mixes any."""
        taken = shares > _SHARE
        mixes = np.add.reduceat(taken, self._begins, dtype=np.intp) > 1
        if not mixes.any():
            return None
        loses_j = self._joules[faster] - self._mixed(self._joules, shares)
        group = int(np.where(mixes, loses_j, -np.inf).argmax())
        own = self._group == group
        first, *_, last = np.flatnonzero(own & taken)
        slower = np.arange(len(shares)) > min(max(faster[group], first), last - 1)
        return own & ~slower, own & slower

    def _round(self, values: Floats, faster: Ints) -> None:
        """Keeps the choice of these options, or of slower ones as far as known paths have slack, if it is the best."""
        chosen = faster.copy()
        paths = np.reshape(self._paths, (-1, len(values)))
        slack_s = paths @ self._whole(values, chosen) - self._least_s
        if (slack_s < -_EXACT_S).any():
            return
        longer_s = -paths[:, self._columns]
        while True:
            saves_j = self._joules[chosen][self._group] - self._joules
            needs_s = longer_s - longer_s[:, chosen][:, self._group]
            fits = (saves_j > 0) & (needs_s <= np.maximum(slack_s, 0.0)[:, None]).all(axis=0)
            if not fits.any():
                break
            option = int(np.where(fits, saves_j, 0.0).argmax())
            slack_s = slack_s - needs_s[:, option]
            chosen[self._group[option]] = option
        cost_j = float(self._joules[chosen].sum() + self._idle_w * values[self._period])
        if cost_j < self._below_j and not self._cut(self._whole(values, chosen), _EXACT_S):
            self._below_j, self._best = cost_j * (1 - _SAME), (chosen - self._begins).tolist()

    def _mixed(self, of: Floats, shares: Floats) -> Floats:
        return sums(self._group, of * shares, len(self._begins))

    def _whole(self, values: Floats, chosen: Ints) -> Floats:
        """The columns with these options instead of their mixture."""
        whole = np.zeros_like(values)
        whole[: self._period + 1] = values[: self._period + 1]
        whole[self._columns[chosen]] = 1.0
        return whole

    def _add(self, path: Floats, least_s: float) -> None:
        super()._add(path, least_s)
        self._paths.append(path)
        self._least_s.append(least_s)
