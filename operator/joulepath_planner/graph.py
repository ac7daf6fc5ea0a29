"""Dependencies of one iteration as a graph, and the longest paths through it.

Nodes are instructions in topological order, so that an edge always goes from a lower to a higher index. An edge
(u, v, gap) says: v starts no earlier than `gap` seconds after u ends. A *wrap* (last, first, gap) of a rank says the
same of the first instruction of its next iteration, which starts one period T later.
"""

from __future__ import annotations

from dataclasses import dataclass

from joulepath_planner.dependencies import dependencies
from joulepath_planner.pipeline import Pipeline
from joulepath_planner.schedule import Instruction

Edge = tuple[int, int, float]


@dataclass(frozen=True, slots=True)
class Graph:
    instructions: tuple[Instruction, ...]
    rank: tuple[int, ...]
    edges: tuple[Edge, ...]
    wraps: tuple[Edge, ...]

    @classmethod
    def of(cls, pipeline: Pipeline) -> Graph:
        """The graph of a pipeline. Raises `ScheduleError` where an instruction waits for itself or for nobody."""
        orders = pipeline.schedule.orders
        place = {one: (rank, index) for rank, order in enumerate(orders) for index, one in enumerate(order)}
        needs = dependencies(pipeline.schedule)
        incoming: dict[Instruction, list[tuple[Instruction, float]]] = {}
        for order in orders:
            for index, one in enumerate(order):
                overhead = pipeline.overhead(one.stage, one.kind)
                sources = [(order[index - 1], overhead)] if index else []
                for source in needs[one]:
                    transfer = pipeline.transfer_s.get((source.stage, one.stage, source.kind), 0.0)
                    sources.append((source, transfer + overhead))
                incoming[one] = sources
        ordered = tuple(needs)
        number = {one: index for index, one in enumerate(ordered)}
        longest: dict[tuple[int, int], float] = {}
        for one in ordered:
            for source, gap in incoming[one]:
                key = number[source], number[one]
                longest[key] = max(gap, longest.get(key, 0.0))
        wraps = tuple(
            (
                number[order[-1]],
                number[order[0]],
                (pipeline.rank_tail_s(rank) or 0.0) + pipeline.overhead(order[0].stage, order[0].kind),
            )
            for rank, order in enumerate(orders)
        )
        edges = tuple((source, target, gap) for (source, target), gap in longest.items())
        return cls(ordered, tuple(place[one][0] for one in ordered), edges, wraps)


def least_period_s(graph: Graph, durations_s: list[float]) -> float:
    """The shortest period that these durations allow: the greatest mean length of a cycle per period spanned."""
    size = len(durations_s)
    incoming: list[list[tuple[int, float]]] = [[] for _ in range(size)]
    for source, target, gap in graph.edges:
        incoming[target].append((source, gap))
    firsts = [first for _, first, _ in graph.wraps]
    # length[a][b]: longest path from the start of rank a's first instruction to the start of rank b's next one.
    length: list[list[float]] = []
    for first in firsts:
        start = [-float("inf")] * size
        start[first] = 0.0
        for node in range(first + 1, size):
            for source, gap in incoming[node]:
                candidate = start[source] + durations_s[source] + gap
                if candidate > start[node]:
                    start[node] = candidate
        length.append([start[last] + durations_s[last] + gap for last, _, gap in graph.wraps])
    return _greatest_cycle_mean(length)


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
