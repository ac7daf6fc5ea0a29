"""Which instructions of a rank share a clock."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from statistics import fmean
from typing import Final, Literal, TypeAlias

from joulepath_planner.graph.graph import Graph
from joulepath_planner.inputs.instruction import Instruction, is_pair
from joulepath_planner.inputs.schedule import Schedule

__all__ = ["Granularity", "groups", "least_hold_s", "phases", "runs"]

_LAGS_PER_CLOCK: Final = 4
"""Instructions have clocks of their own if they last this many p95 lags on average."""
_LEAST_LAGS: Final = 2
"""And one that doesn't last this many never has."""

Granularity: TypeAlias = Literal["instruction", "phase", "kind", "rank"]


def phases(order: tuple[Instruction, ...]) -> list[int]:
    """0 before the first backward (warm-up), 2 after the last forward (cool-down), 1 between (steady state)."""
    warm = next(index for index, one in enumerate(order) if one.kind in ("B", "I") or is_pair(one.kind))
    cool = max(index for index, one in enumerate(order) if one.kind == "F" or is_pair(one.kind)) + 1
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


def least_hold_s(lasts_s: Sequence[float], p95_s: float) -> float:
    """How long a clock is held at least, for lags of p95_s. lasts_s: seconds of each instruction."""
    return (_LEAST_LAGS if fmean(lasts_s) >= _LAGS_PER_CLOCK * p95_s else _LAGS_PER_CLOCK) * p95_s


def runs(graph: Graph, lasts_s: Sequence[float], least_s: float) -> list[list[int]]:
    """Instructions alone where they last long enough, others together with those that follow them on their rank.

    lasts_s: seconds of each node; least_s: seconds that a group lasts at least, unless its whole rank lasts less.
    """
    found: list[list[int]] = []
    open_: dict[int, tuple[list[int], float]] = {}
    closed: dict[int, list[int]] = {}
    for node, rank in enumerate(graph.rank):  # topological, hence in each rank's order
        members, seconds = open_.pop(rank, ([], 0.0))
        members.append(node)
        if seconds + lasts_s[node] >= least_s:
            found.append(members)
            closed[rank] = members
        else:
            open_[rank] = members, seconds + lasts_s[node]
    for rank, (members, _) in open_.items():
        if rank in closed:
            closed[rank] += members
        else:
            found.append(members)
    return found
