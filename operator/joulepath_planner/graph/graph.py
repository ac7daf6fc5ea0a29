"""Dependencies of one iteration as a graph, and the longest paths through it.

Nodes are instructions in topological order, so that an edge always goes from a lower to a higher index. An edge
(u, v, gap) says: v starts no earlier than `gap` seconds after the end of u's work, which is what clocks change; what
follows from the order of a rank is left out. A *wrap* (last, first, gap) of a rank says the same of the first
instruction of its next iteration, which starts one period T later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final, TypeAlias

import numpy as np

from joulepath_planner.graph.dependencies import dependencies
from joulepath_planner.inputs.instruction import Instruction
from joulepath_planner.inputs.pipeline import Pipeline

__all__ = ["Edge", "Graph", "binding_wraps", "least_period_s", "path_lengths"]

Edge: TypeAlias = tuple[int, int, float]
_BY_SOURCE: Final = itemgetter(0)


@dataclass(frozen=True, slots=True)
class Graph:
    instructions: tuple[Instruction, ...]
    rank: tuple[int, ...]
    edges: tuple[Edge, ...]
    wraps: tuple[Edge, ...]

    @classmethod
    def of(cls, pipeline: Pipeline) -> Graph:
        """The graph of a pipeline.

        Raises:
            ScheduleError: An instruction waits for itself or for nobody.
        """
        orders, rank_of, transfers = pipeline.schedule.orders, pipeline.schedule.rank_of, pipeline.transfer_s
        needs = dependencies(pipeline.schedule)
        number: dict[Instruction, int] = {}
        before: dict[int, int] = {}  # the latest node of each rank
        ranks, edges, extras = list[int](), list[Edge](), list[float]()
        for node, one in enumerate(needs):
            rank = rank_of[one.stage]
            gaps = {before[rank]: pipeline.gap(one)} if rank in before else {}
            for need in needs[one]:
                transfer = transfers.get(need.link, 0.0) if transfers and need.link is not None else 0.0
                if transfer or rank_of[need.after.stage] != rank:
                    source = number[need.after]
                    gaps[source] = max(transfer, gaps.get(source, 0.0))
            edges += [(source, node, gap + extras[source]) for source, gap in gaps.items()]
            extras.append(pipeline.extra(one))
            number[one] = before[rank] = node
            ranks.append(rank)
        wraps = tuple(
            (
                number[order[-1]],
                number[order[0]],
                (pipeline.rank_tail_s(rank) or 0.0) + pipeline.gap(order[0]) + pipeline.extra(order[-1]),
            )
            for rank, order in enumerate(orders)
        )
        return cls(tuple(needs), tuple(ranks), tuple(edges), wraps)


def path_lengths(graph: Graph, durations_s: Sequence[float]) -> tuple[list[float], list[float]]:
    """The longest path from the first node's start to each start, and from there to the first node's next start.

    The second one is of one period and by the wrap of the first node's rank only. -inf where there is no path.
    """
    size = len(durations_s)
    before, after = [-math.inf] * size, [-math.inf] * size
    before[0] = 0.0
    for source, target, gap in graph.edges:  # ascending by target: the source is complete
        start = before[source] + durations_s[source] + gap
        if start > before[target]:
            before[target] = start
    last, _, gap = next(wrap for wrap in graph.wraps if wrap[1] == 0)
    after[last] = durations_s[last] + gap
    for source, target, gap in sorted(graph.edges, key=_BY_SOURCE, reverse=True):
        rest = durations_s[source] + gap + after[target]
        if rest > after[source]:
            after[source] = rest
    return before, after


def binding_wraps(
    graph: Graph, durations_s: Sequence[float], before_s: Sequence[float], after_s: Sequence[float]
) -> list[Edge]:
    """The first node's wrap, and those that don't follow from it: by `path_lengths` for these durations or longer."""
    return [
        (last, first, gap)
        for last, first, gap in graph.wraps
        if first == 0 or not before_s[first] + after_s[last] - durations_s[last] >= gap
    ]


def least_period_s(graph: Graph, durations_s: list[float]) -> float:
    """The shortest period that these durations allow: the greatest mean length of a cycle per period spanned."""
    before, after = path_lengths(graph, durations_s)
    wraps = binding_wraps(graph, durations_s, before, after)
    if len(wraps) == 1:
        return after[0]
    # start[node][a]: longest path from the start of the first node of wrap a to this node's.
    start = np.full((len(durations_s), len(wraps)), -np.inf)
    start[[first for _, first, _ in wraps], np.arange(len(wraps))] = 0.0
    for source, target, gap in graph.edges:
        np.maximum(start[target], start[source] + (durations_s[source] + gap), out=start[target])
    lengths = np.array([start[last] + durations_s[last] + gap for last, _, gap in wraps]).T
    return _greatest_cycle_mean(lengths.tolist())


def _greatest_cycle_mean(length: list[list[float]]) -> float:
    """The greatest mean of a cycle by Karp's theorem; an arc of length -inf is absent."""
    size = len(length)
    best = [[0.0] * size]
    for _ in range(size):
        last = best[-1]
        best.append([max(last[a] + length[a][b] for a in range(size)) for b in range(size)])
    return max(
        min((best[size][b] - best[k][b]) / (size - k) for k in range(size) if best[k][b] > -float("inf"))
        for b in range(size)
        if best[size][b] > -float("inf")
    )
