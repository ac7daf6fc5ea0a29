"""What instructions wait for, as it follows from their kinds.

- `F` takes the activations of the stage before.
- `B` and `I` take the gradient of the stage after, sent by its B or I, and what the own stage's forward left, or its
  recomputation where there is one.
- `W` takes what the own stage's I left; `C` (recomputation) the input that F kept.
- `X` takes nothing.

Each also waits for its predecessor on its rank. What the forward of a pair sends to another rank leaves when its
partner has ended.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from joulepath_planner.profile import FIXED
from joulepath_planner.schedule import Instruction, Schedule, ScheduleError


class Need(NamedTuple):
    """The instruction whose result is taken, and the one after whose end it is there: as a rule the same."""

    result: Instruction
    after: Instruction


Dependencies = dict[Instruction, tuple[Need, ...]]


def dependencies(schedule: Schedule) -> Dependencies:
    """What each instruction waits for, other than its predecessor on its rank; none comes before what it waits for.

    Raises `ScheduleError` where an instruction waits for one that nobody executes, or for itself in the end.
    """
    last = schedule.stages - 1
    everything = {one for order in schedule.orders for one in order}
    rank_of, partner = schedule.rank_of, schedule.partner

    def need(one: Instruction, result: Instruction) -> Need:
        travels = rank_of[result.stage] != rank_of[one.stage]
        return Need(result, partner.get(result, result) if travels else result)

    needs = {
        one: tuple(need(one, result) for result in _results(one, last, everything))
        for order in schedule.orders
        for one in order
    }
    ordered = _ordered(schedule, needs)
    if len(ordered) < len(needs):
        raise ScheduleError(_deadlock(schedule, needs, set(ordered)))
    return {one: needs[one] for one in ordered}


def _results(one: Instruction, last: int, everything: set[Instruction]) -> tuple[Instruction, ...]:
    def found(stage: int, kinds: str) -> Instruction:
        for kind in kinds:
            if (wanted := Instruction(stage, kind, one.microbatch)) in everything:
                return wanted
        raise ScheduleError(f"{one.label} needs {stage}:{kinds[-1]}{one.microbatch}, which no rank executes.")

    stage = one.stage
    if one.kind == "F":
        return (found(stage - 1, "F"),) if stage else ()
    if one.kind in "BI":
        own = found(stage, "CF")
        return (own, found(stage + 1, "IB")) if stage < last else (own,)
    return () if one.kind == FIXED else (found(stage, "I" if one.kind == "W" else "F"),)


def _ordered(schedule: Schedule, needs: Dependencies) -> list[Instruction]:
    """All instructions that can run, as breadth-first as they get ready."""
    missing = {one: len(sources) for one, sources in needs.items()}
    after: dict[Instruction, list[Instruction]] = {one: [] for one in needs}
    for one, sources in needs.items():
        for source in sources:
            after[source.after].append(one)
    for order in schedule.orders:
        for before, one in pairwise(order):
            after[before].append(one)
            missing[one] += 1
    ordered = [one for one, count in missing.items() if not count]
    for one in ordered:  # grows while it is read
        for target in after[one]:
            missing[target] -= 1
            if not missing[target]:
                ordered.append(target)
    return ordered


def _deadlock(schedule: Schedule, needs: Dependencies, done: set[Instruction]) -> str:
    """Which ranks wait for each other, each in the instruction that it has come to."""
    rank_of = schedule.rank_of
    heads = {
        rank: head
        for rank, order in enumerate(schedule.orders)
        if (head := next((one for one in order if one not in done), None)) is not None
    }
    rank = next(iter(heads))
    visited: list[int] = []
    while rank not in visited:
        visited.append(rank)
        awaited = next(need.after for need in needs[heads[rank]] if need.after not in done)
        rank = rank_of[awaited.stage]
    cycle = visited[visited.index(rank) :]
    waits = []
    for rank in cycle:
        awaited = next(need.after for need in needs[heads[rank]] if need.after not in done)
        waits.append(
            f"rank {rank} runs {heads[rank].label} only after {awaited.label}, "
            f"which rank {rank_of[awaited.stage]} runs no sooner than {heads[rank_of[awaited.stage]].label}"
        )
    return f"the schedule never ends: {'; '.join(waits)}. Reorder these."
