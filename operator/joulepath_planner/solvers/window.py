"""A window: a few instructions near in time, with whole clocks, as a mixed-integer program for HiGHS.

Each instruction has a start, and a binary column for each step from an option to the next: it takes a step only after
all faster ones. Unlike in the linear program, nothing lies between two options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import highspy
import numpy as np

from joulepath_planner.arrays import Floats, Ints, Mask
from joulepath_planner.graph.graph import Graph
from joulepath_planner.graph.options import Options
from joulepath_planner.solvers.solution import Solver

__all__ = ["Arcs", "Found", "Menu", "Window", "menus", "windows"]

_GAP: Final = 3e-5
"""Relative, of a window: a bound this near its best choice is good enough."""


class Menu(NamedTuple):
    """Options of an instruction: seconds, ascending, and effective joules."""

    seconds: Floats
    joules: Floats


class Arcs(NamedTuple):
    """Dependencies: `target` starts `gap_s` after `source` ends, or, if it is a wrap, a period less."""

    source: Ints
    target: Ints
    gap_s: Floats
    wrap: Mask

    @classmethod
    def of(cls, graph: Graph) -> Arcs:
        source, target, gap = (np.array(column) for column in zip(*graph.edges, *graph.wraps, strict=True))
        return cls(source, target, gap, np.arange(len(source)) >= len(graph.edges))

    def where(self, mask: Mask) -> Arcs:
        return Arcs(self.source[mask], self.target[mask], self.gap_s[mask], self.wrap[mask])

    def within(self, nodes: Ints, size: int) -> Arcs:
        """Those that join two of these nodes, of `size` in all, by places among them."""
        place = np.full(size, -1)
        place[nodes] = np.arange(len(nodes))
        own = self.where((place[self.source] >= 0) & (place[self.target] >= 0))
        return own._replace(source=place[own.source], target=place[own.target])


class Found(NamedTuple):
    """Joules, prices included, that no choice goes below; what that took, as simplex iterations times columns, about a
    microsecond each."""

    bound_j: float
    work: int


def menus(options: Sequence[Options]) -> list[Menu]:
    known = {id(one): Menu(np.array(one.total_s), np.array(one.effective_j)) for one in options}
    return [known[id(one)] for one in options]


def windows(starts_s: Floats, size: int) -> list[Ints]:
    """All nodes in their order of time, so many in each window."""
    order = np.argsort(starts_s, kind="stable")
    return [np.sort(nodes) for nodes in np.split(order, np.arange(size, len(order), size))]


@dataclass(frozen=True, slots=True)
class Window:
    """Instructions by their place in the window, a value of each array for each.

    price_w, pull_w: what a second more of it costs besides its effective energy, and a second later of its start.
    earliest_s, latest_s: between which it starts. period_s: between which the period is, and period_w: what a second of
    it costs.
    """

    menus: Sequence[Menu]
    arcs: Arcs
    price_w: Floats
    pull_w: Floats
    earliest_s: Floats
    latest_s: Floats
    period_s: tuple[float, float]
    period_w: float

    def solve(self, nodes: int) -> Found:
        """By so many nodes of branch and bound."""
        size = len(self.menus)
        costs = [menu.joules + price * menu.seconds for menu, price in zip(self.menus, self.price_w, strict=True)]
        owner = np.repeat(np.arange(size), [len(cost) - 1 for cost in costs])
        first = np.searchsorted(owner, np.arange(size + 1))
        width = np.concatenate([np.diff(menu.seconds) for menu in self.menus])
        least = np.array([menu.seconds[0] for menu in self.menus])
        step = size + 1 + np.arange(len(width))  # columns: starts, the period, then the steps

        # Rows: steps in their order, arcs.
        after = np.flatnonzero(owner[1:] == owner[:-1]) + 1
        source, target, gap, wrap = self.arcs
        arcs, apart = len(after) + np.arange(len(source)), source != target
        counts = np.diff(first)[source]
        taken = np.repeat(first[source] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        entries = [
            (np.arange(len(after)), step[after - 1], np.ones(len(after))),
            (np.arange(len(after)), step[after], -np.ones(len(after))),
            (arcs[apart], target[apart], np.ones(apart.sum())),
            (arcs[apart], source[apart], -np.ones(apart.sum())),
            (arcs[wrap], np.full(wrap.sum(), size), np.ones(wrap.sum())),
            (np.repeat(arcs, counts), step[taken], -width[taken]),
        ]
        row, column, value = (np.concatenate(part) for part in zip(*entries, strict=True))
        order = np.argsort(row, kind="stable")

        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = size + 1 + len(step), len(after) + len(source)
        model.offset_ = float(sum(cost[0] for cost in costs))
        model.col_cost_ = np.concatenate([self.pull_w, [self.period_w], *(np.diff(cost) for cost in costs)])
        model.col_lower_ = np.concatenate([self.earliest_s, [self.period_s[0]], np.zeros(len(step))])
        model.col_upper_ = np.concatenate([self.latest_s, [self.period_s[1]], np.ones(len(step))])
        model.row_lower_ = np.concatenate([np.zeros(len(after)), gap + least[source]])
        model.row_upper_ = np.full(model.num_row_, np.inf)
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_ = np.searchsorted(row[order], np.arange(model.num_row_ + 1))
        model.a_matrix_.index_, model.a_matrix_.value_ = column[order], value[order]
        kinds = highspy.HighsVarType
        model.integrality_ = [kinds.kContinuous] * (size + 1) + [kinds.kInteger] * len(step)
        solver = Solver(presolve=False)
        solver.passModel(model)
        bound_j, iterations = solver.branched(nodes, _GAP)
        return Found(bound_j, iterations * model.num_col_)
