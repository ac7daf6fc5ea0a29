"""Earliest starts of many assignments of durations at once: the graph, level by level."""

from __future__ import annotations

import itertools
from typing import Final, NamedTuple

import numpy as np

from joulepath_planner.arrays import Floats, Ints, Mask
from joulepath_planner.graph.graph import Graph

__all__ = ["RESOLUTION_S", "Level", "Network"]

RESOLUTION_S: Final = 1e-12
"""Differences in time below this are rounding of floating point, not slack."""


class Level(NamedTuple):
    """The rows of a level, and the edges that bind them to rows computed before.

    rows: those that have edges, as offsets into the level; starts: where the edges of each begin; others, gaps_s: the
    row at the other end of each edge, and its gap.
    """

    begin: int
    end: int
    rows: Ints
    starts: Ints
    others: Ints
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

    def earliest_s(self, durations_s: Floats, period_s: Floats) -> tuple[Floats, Mask]:
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


def _levels(size: int, bounds: Ints, keys: Ints, others: Ints, gaps_s: Floats) -> list[Level]:
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
