"""A lower bound for whole clocks, where the linear program's mixtures of two clocks leave a gap.

Lagrangian decomposition (Guignard and Kim 1987; that any prices prove a bound: Geoffrion 1974). The linear program's
flow prices each dependency; paying these prices instead of keeping a dependency can only make a plan cheaper (see
`relaxation`). Here only dependencies between two *windows*, of instructions near in time, are paid for. Those within
one are kept, and each window is minimised by itself over the clocks that there are, by branch and bound:

    sum over windows of min (effective energies + what leaves and enters at its price) + priced gaps + priced period

With mixtures instead of clocks that would be the linear program's value once more: what it is higher by is what whole
clocks cost where ranks meet within a window. A pipeline that is one window is priced nowhere. A search that is cut
short leaves a bound too, so the effort is counted: the same problem, the same bound.

It holds for clocks that switch at once: with lags an instruction may run at one clock first and then at another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from joulepath_planner.arrays import Floats, Ints, sums
from joulepath_planner.graph.graph import Graph
from joulepath_planner.graph.network import Network
from joulepath_planner.graph.options import Options
from joulepath_planner.solvers.relaxation import Relaxation
from joulepath_planner.solvers.window import Arcs, Window, menus, windows

__all__ = ["CLOSE", "DiscreteBound"]

CLOSE: Final = 0.005
"""Relative: a plan this near the bound is left alone, and the bound too."""
_SIZES: Final = ((CLOSE, 32, 2000), (0.01, 48, 400))
"""Over which gap windows of so many instructions are tried, in pipelines of up to so many."""
_WHOLE: Final = 48
"""Instructions up to which a pipeline is one window."""
_NODES: Final = 100
"""Of branch and bound for each window, as long as all together have taken less than this for each instruction, at most
in all (simplex iterations times columns); then one."""
_WORK: Final = (1_500, 600_000)
_STEPS: Final = 200
"""Of a window on average: windows are smaller where clocks are many."""


class DiscreteBound:
    """For an option for each instruction, with a period between these two. idle_w: of all GPUs that wait.

    Raises:
        ArithmeticError: The interior-point method, which finds the prices, did not converge.
    """

    def __init__(
        self, graph: Graph, options: Sequence[Options], idle_w: float, at_least_s: float, at_most_s: float
    ) -> None:
        self._graph, self._menus, self._idle_w = graph, menus(options), idle_w
        self._relaxation = relaxation = Relaxation.of(graph, options, idle_w)
        self._period_s = max(at_least_s, relaxation.least_period_s), at_most_s
        self._earliest_s, self._latest_s = (column[:-1] for column in relaxation.window(*self._period_s))
        if relaxation.size > _WHOLE:
            # Only here: what it imports takes longer to load than a small pipeline to plan.
            from joulepath_planner.solvers.interior import InteriorPointMethod, NoInteriorError

            if not len(relaxation.width_s) or any(last == first for last, first, _ in graph.wraps):
                raise NoInteriorError(
                    "the interior-point method takes clocks to choose from, and no rank of one alone."
                )
            point = InteriorPointMethod(relaxation).solve(at_most_s, free=at_least_s < at_most_s)
            network = Network(graph)
            seconds = (relaxation.least_s[:-1] + point.extra_s)[network.nodes, None]
            self._flow_w, self._starts_s = point.flow_w, np.empty(relaxation.size)
            self._starts_s[network.nodes] = network.earliest_s(seconds, np.array([point.period_s]))[0][:, 0]

    def least_j(self, known_j: float, above_j: float) -> float:
        """The greater of a known bound and this one, which is looked for where a plan of `above_j` is far above it."""
        if self._relaxation.size <= _WHOLE:
            return max(known_j, self._whole())
        for gap, size, most in _SIZES:
            if above_j > known_j * (1 + gap) and self._relaxation.size <= most:
                known_j = max(known_j, self._decomposed(size))
        return known_j

    def _whole(self) -> float:
        nodes = np.arange(self._relaxation.size)
        nothing = np.zeros(len(nodes))
        return self._window(nodes, Arcs.of(self._graph), nothing, nothing, self._idle_w).solve(_NODES).bound_j

    def _decomposed(self, size: int) -> float:
        """With so many instructions in a window."""
        count, of = self._relaxation.size, self._relaxation
        every = Arcs(of.source, of.target, of.gap_s, of.wrap)
        source, target, gap_s, wrap = every
        steps = sum(len(menu.seconds) - 1 for menu in self._menus) / count
        parts = windows(self._starts_s, int(np.clip(_STEPS / max(steps, 1e-9), 2, size)))
        owner = np.empty(count, dtype=np.intp)
        for number, nodes in enumerate(parts):
            owner[nodes] = number
        kept = (owner[source] == owner[target]) & ~wrap
        arcs = every.where(kept)
        flow = np.where(kept, 0.0, self._flow_w)
        paid = sums(source, flow, count)
        pull = paid - sums(target, flow, count)
        period_w = self._idle_w - float(flow[wrap].sum())
        bound = float(flow @ gap_s) + min(period_w * period for period in self._period_s)
        work = min(_WORK[0] * count, _WORK[1])
        for nodes in parts:
            window = self._window(nodes, arcs.within(nodes, count), paid[nodes], pull[nodes])
            found = window.solve(_NODES if work > 0 else 1)
            bound, work = bound + found.bound_j, work - found.work
        return bound

    def _window(self, nodes: Ints, arcs: Arcs, price_w: Floats, pull_w: Floats, period_w: float = 0.0) -> Window:
        chosen, earliest, latest = [self._menus[node] for node in nodes], self._earliest_s[nodes], self._latest_s[nodes]
        return Window(chosen, arcs, price_w, pull_w, earliest, latest, self._period_s, period_w)
