"""From the linear program's seconds to clocks that the GPU has, without ever passing the deadline.

Each group first takes the slowest clock that is no slower than its linear-program time, in every kind that it has.
What slack this leaves is then reclaimed greedily: the step that saves most joules per second comes first, if the
longest path allows it. Slack only ever shrinks, so a step refused once need never be tried again.

Where groups are few, each counts for much, and greed can spend on small steps the slack that a large one needs. There
each slowed group is put back in turn, the others get the slack first, and what costs less is kept.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from joulepath_planner.clocks.timing import Timing
from joulepath_planner.graph.graph import Graph
from joulepath_planner.graph.options import Options
from joulepath_planner.inputs.instruction import StageKind
from joulepath_planner.solvers.solution import SOLVER_TOLERANCE_S

__all__ = ["choose", "rounded", "rounded_alone"]

_EXCHANGE_WORK: Final = 6000
"""Groups times instructions up to which exchanges are tried: a tenth of a second."""


def choose(
    graph: Graph,
    groups: Sequence[Sequence[int]],
    options: Sequence[Options],
    period_s: float,
    starts: Sequence[Sequence[int]],
) -> list[int] | None:
    """The index of the option of each group; None where not even the fastest clocks meet the period.

    starts: choices to start from, the first of them that meets the period; the fastest clocks if none does.
    """
    keys = [[(graph.instructions[node].stage, graph.instructions[node].kind) for node in group] for group in groups]
    for start in (*starts, [0] * len(groups)):
        choices = list(start)
        timing = Timing(graph, period_s, _durations(graph, groups, keys, options, choices))
        if timing.feasible:
            _reclaim(timing, groups, keys, options, choices)
            return _exchange(graph, groups, keys, options, period_s, choices)
    return None


def rounded(options: Sequence[Options], extra_s: Sequence[float]) -> list[list[int]]:
    """Starts from the seconds that the linear program of these groups gave each over its least total.

    A time this close to a clock's time means that clock; where that is too long, the next faster one.
    """
    return [
        [_round(option, extra + tolerance) for option, extra in zip(options, extra_s, strict=True)]
        for tolerance in (SOLVER_TOLERANCE_S, -SOLVER_TOLERANCE_S)
    ]


def rounded_alone(
    graph: Graph, groups: Sequence[Sequence[int]], options: Sequence[Options], seconds: Sequence[float]
) -> list[list[int]]:
    """A start from the seconds that the linear program gave each instruction alone: it slows none beyond that."""
    start = []
    for group, option in zip(groups, options, strict=True):
        limits = dict.fromkeys(option.keys, math.inf)
        for node in group:
            key = graph.instructions[node].stage, graph.instructions[node].kind
            limits[key] = min(limits[key], seconds[node] + SOLVER_TOLERANCE_S)
        start.append(_cheapest(option, [limits[key] for key in option.keys]))
    return [start]


def _exchange(
    graph: Graph,
    groups: Sequence[Sequence[int]],
    keys: Sequence[Sequence[StageKind]],
    options: Sequence[Options],
    period_s: float,
    best: list[int],
) -> list[int]:
    def cost(choices: Sequence[int]) -> float:
        return sum(option.effective_j[choice] for option, choice in zip(options, choices, strict=True))

    for group in range(len(groups)) if len(groups) * len(graph.instructions) <= _EXCHANGE_WORK else ():
        for choice in {best[group] - 1, 0} - {best[group], -1}:
            trial = [*best[:group], choice, *best[group + 1 :]]
            timing = Timing(graph, period_s, _durations(graph, groups, keys, options, trial))
            if timing.feasible:
                _reclaim(timing, groups, keys, options, trial, held=group)
                _reclaim(timing, groups, keys, options, trial)
                best = min(best, trial, key=cost)
    return best


def _round(option: Options, extra_s: float) -> int:
    hull_totals = [option.total_s[index] for index in option.hull]
    total = hull_totals[0] + extra_s
    limits = [
        float(np.interp(total, hull_totals, [option.times_s[index][kind] for index in option.hull])) + 1e-12
        for kind in range(len(option.keys))
    ]
    return _cheapest(option, limits)


def _cheapest(option: Options, limits_s: Sequence[float]) -> int:
    """The cheapest option that keeps each kind's limit; the fastest if none does."""
    fitting = [
        choice
        for choice, times in enumerate(option.times_s)
        if all(time <= limit for time, limit in zip(times, limits_s, strict=True))
    ]
    return min(fitting, key=lambda choice: option.effective_j[choice], default=0)


def _durations(
    graph: Graph,
    groups: Sequence[Sequence[int]],
    keys: Sequence[Sequence[StageKind]],
    options: Sequence[Options],
    choices: Sequence[int],
) -> list[float]:
    durations = [0.0] * len(graph.instructions)
    for group, members, option, choice in zip(groups, keys, options, choices, strict=True):
        for node, duration in zip(group, option.durations(choice, members), strict=True):
            durations[node] = duration
    return durations


def _reclaim(
    timing: Timing,
    groups: Sequence[Sequence[int]],
    keys: Sequence[Sequence[StageKind]],
    options: Sequence[Options],
    choices: list[int],
    held: int | None = None,
) -> None:
    heap: list[tuple[float, int, int, int]] = []
    table = [
        [option.durations(choice, members) for choice in range(len(option.clocks_mhz))]
        for option, members in zip(options, keys, strict=True)
    ]

    def fits(group: int, choice: int) -> bool:
        return all(
            duration - timing.durations_s[node] <= timing.slack_s(node)
            for node, duration in zip(groups[group], table[group][choice], strict=True)
        )

    def offer(group: int) -> None:
        option, here = options[group], choices[group]
        for there in range(here + 1, len(option.clocks_mhz)):
            saved = option.effective_j[here] - option.effective_j[there]
            if saved > 0 and fits(group, there):
                heapq.heappush(heap, (-saved / (option.total_s[there] - option.total_s[here]), group, here, there))

    for group in range(len(groups)):
        if group != held:
            offer(group)
    while heap:
        _, group, here, there = heapq.heappop(heap)
        if choices[group] != here or not fits(group, there):
            continue
        if timing.lengthen(dict(zip(groups[group], table[group][there], strict=True))):
            choices[group] = there
            offer(group)
