"""Which instructions of a rank share a clock."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Literal

from joulepath_planner.graph import Graph
from joulepath_planner.schedule import Instruction, Schedule

Granularity = Literal["instruction", "phase", "kind", "rank"]


def phases(order: tuple[Instruction, ...]) -> list[int]:
    """0 before the first backward (warm-up), 2 after the last forward (cool-down), 1 between (steady state)."""
    forwards = [one.kind == "F" for one in order]
    warm = forwards.index(False) if False in forwards else len(order)
    cool = len(order) - forwards[::-1].index(True) if True in forwards else 0
    return [0 if index < warm else 2 if index >= cool else 1 for index in range(len(order))]


def groups(graph: Graph, schedule: Schedule, granularity: Granularity) -> list[list[int]]:
    """The nodes of the graph in groups of one clock each."""
    phase = {one: where for order in schedule.orders for one, where in zip(order, phases(order), strict=True)}
    name: Callable[[int, Instruction], Hashable] = {
        "instruction": lambda node, one: node,
        "phase": lambda node, one: (graph.rank[node], phase[one]),
        "kind": lambda node, one: (one.stage, one.kind),
        "rank": lambda node, one: graph.rank[node],
    }[granularity]
    found: dict[Hashable, list[int]] = {}
    for node, one in enumerate(graph.instructions):
        found.setdefault(name(node, one), []).append(node)
    return list(found.values())
