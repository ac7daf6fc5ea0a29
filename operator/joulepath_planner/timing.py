"""Earliest and latest starts, and what slack they leave: for one assignment of durations that grows step by step
(`Timing`), and for many assignments at once (`Network`)."""

from __future__ import annotations

import heapq
import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from joulepath_planner.graph import Graph
from joulepath_planner.options import Floats

RESOLUTION_S = 1e-12
"""Differences in time below this are rounding of floating point, not slack."""


class Timing:
    """Earliest and latest starts for a period T, kept exact while durations grow.

    Durations are feasible for T when every constraint, the wraps among them, can hold at once: when no cycle of
    the graph is longer than the periods that it spans. Starts are counted from the first node's.
    """

    def __init__(self, graph: Graph, period_s: float, durations_s: list[float]) -> None:
        self.period_s = period_s
        self.durations_s = list(durations_s)
        size = len(durations_s)
        self._next: list[list[tuple[int, float]]] = [[] for _ in range(size)]
        self._previous: list[list[tuple[int, float]]] = [[] for _ in range(size)]
        wrapped = [(last, first, gap - period_s) for last, first, gap in graph.wraps]
        for source, target, gap in (*graph.edges, *wrapped):
            self._next[source].append((target, gap))
            self._previous[target].append((source, gap))
        # Beyond this no event of a feasible iteration starts: a start that passes it is on a cycle too long.
        limit = period_s * (len(graph.wraps) + 1)
        self.earliest_s = [-limit] * size
        self.earliest_s[0] = 0.0
        self.latest_s = [limit] * size
        self.latest_s[0] = 0.0
        self.feasible = self._push_starts(range(size)) is not None
        if self.feasible:
            self._pull_starts(range(size))

    def slack_s(self, node: int) -> float:
        """How much later this node may start, or how much longer it may last, if all else stays."""
        return self.latest_s[node] - self.earliest_s[node]

    def lengthen(self, changes: dict[int, float]) -> bool:
        """Give these nodes these longer durations; where T would not hold, change nothing and return False."""
        before = {node: self.durations_s[node] for node in changes}
        for node, duration in changes.items():
            self.durations_s[node] = duration
        moved = self._push_starts(changes)
        if moved is None:
            for node, duration in before.items():
                self.durations_s[node] = duration
            return False
        self._pull_starts(changes)
        return True

    def _push_starts(self, seeds: range | dict[int, float]) -> dict[int, float] | None:
        """Propagate earliest starts from the seeds; None, and nothing changed, if one passes its latest start."""
        earliest, latest, durations = self.earliest_s, self.latest_s, self.durations_s
        old: dict[int, float] = {}
        heap = sorted(seeds)
        queued = set(heap)
        while heap:
            node = heapq.heappop(heap)
            queued.discard(node)
            end = earliest[node] + durations[node]
            for target, gap in self._next[node]:
                start = end + gap
                if start > earliest[target] + RESOLUTION_S:
                    if start > latest[target] + RESOLUTION_S:
                        for changed, value in old.items():
                            earliest[changed] = value
                        return None
                    old.setdefault(target, earliest[target])
                    earliest[target] = start
                    if target not in queued:
                        queued.add(target)
                        heapq.heappush(heap, target)
        return old

    def _pull_starts(self, seeds: range | dict[int, float]) -> None:
        latest, durations = self.latest_s, self.durations_s
        heap: list[int] = []
        queued: set[int] = set()

        def relax(node: int) -> None:
            if not self._next[node]:
                return
            start = min(latest[target] - gap for target, gap in self._next[node]) - durations[node]
            if start < latest[node] - RESOLUTION_S:
                latest[node] = start
                for source, _ in self._previous[node]:
                    if source not in queued:
                        queued.add(source)
                        heapq.heappush(heap, -source)

        for node in sorted(seeds, reverse=True):
            relax(node)
        while heap:
            node = -heapq.heappop(heap)
            queued.discard(node)
            relax(node)


class Level(NamedTuple):
    """The rows of a level, and the edges that bind them to rows computed before.

    rows: those that have edges, as offsets into the level; starts: where the edges of each begin; others, gaps_s: the
    row at the other end of each edge, and its gap.
    """

    begin: int
    end: int
    rows: NDArray[np.intp]
    starts: NDArray[np.intp]
    others: NDArray[np.intp]
    gaps_s: Floats


class Network:
    """The graph by levels, for many assignments of durations at once.

    Arrays have a row for each node, in the order of `nodes`, and a column for each assignment. A node's level is the
    longest chain of dependencies before it, so that all nodes of a level can be computed together.
    """

    def __init__(self, graph: Graph) -> None:
        size = len(graph.instructions)
        edges = sorted(graph.edges, key=lambda edge: edge[1])
        level = [0] * size
        for source, target, _ in edges:
            level[target] = max(level[target], level[source] + 1)
        self.nodes = np.argsort(level, kind="stable")
        row_of = np.argsort(self.nodes)
        sources = row_of[np.array([edge[0] for edge in edges], dtype=np.intp)]
        targets = row_of[np.array([edge[1] for edge in edges], dtype=np.intp)]
        gaps = np.array([edge[2] for edge in edges])
        bounds = np.searchsorted(np.array(level)[self.nodes], np.arange(max(level) + 2))
        self.level = np.array(level)[self.nodes]
        self.edges = sources, targets, gaps[:, None]
        self.forward = _levels(size, bounds, targets, sources, gaps)
        self.backward = _levels(size, bounds, sources, targets, gaps)[::-1]
        self.firsts = row_of[[first for _, first, _ in graph.wraps]]
        self.lasts = row_of[[last for last, _, _ in graph.wraps]]
        self.wrap_gaps_s = np.array([[gap] for _, _, gap in graph.wraps])

    def earliest_s(self, durations_s: Floats, period_s: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Earliest starts, counted from the first one's, and which columns keep their period.

        Ranks whose last instruction ends late begin late; a column keeps its period if that settles before every
        rank has pushed every other.
        """
        floors = np.zeros((len(self.firsts), durations_s.shape[1]))
        for _ in range(len(self.firsts) + 1):
            starts, ends = self.starts_s(durations_s, floors)
            needed = ends[self.lasts] + self.wrap_gaps_s - period_s
            late = needed > starts[self.firsts] + RESOLUTION_S
            if not late.any():
                break
            floors = np.maximum(floors, needed)
        return starts, ~late.any(axis=0)

    def starts_s(self, durations_s: Floats, floors_s: Floats) -> tuple[Floats, Floats]:
        """Earliest starts and ends within one iteration; floors_s: before which the firsts don't start."""
        starts = np.zeros_like(durations_s)
        starts[self.firsts] = floors_s
        ends = np.empty_like(durations_s)
        for begin, end, rows, edges, others, gaps in self.forward:
            if len(rows):
                reached = np.maximum.reduceat(ends[others] + gaps, edges, axis=0)
                starts[begin + rows] = np.maximum(starts[begin + rows], reached)
            ends[begin:end] = starts[begin:end] + durations_s[begin:end]
        return starts, ends


def _levels(
    size: int, bounds: NDArray[np.intp], keys: NDArray[np.intp], others: NDArray[np.intp], gaps_s: Floats
) -> list[Level]:
    order = np.argsort(keys, kind="stable")
    others, gaps_s = others[order], gaps_s[order, None]
    first_edge = np.searchsorted(keys[order], np.arange(size + 1))
    levels = []
    for begin, end in itertools.pairwise(bounds):
        edges = slice(first_edge[begin], first_edge[end])
        rows = np.flatnonzero(np.diff(first_edge[begin : end + 1]))
        starts = first_edge[begin + rows] - first_edge[begin]
        levels.append(Level(int(begin), int(end), rows, starts, others[edges], gaps_s[edges]))
    return levels
