"""What instructions wait for, as it follows from their kinds.

- `F` takes the activations of the stage before.
- `B` and `I` take the gradient of the stage after, sent by its B or I, and what the own stage's forward left, or its
  recomputation where there is one.
- `W` takes what the own stage's I left; `C` (recomputation) the input that F kept.
- `X` takes nothing.
- A pair takes what its F and its B take, and neither's result is there before its end.

Each also waits for its predecessor on its rank. As the schedule says, what is sent to another rank may leave later than
its instruction ends, be awaited sooner than the one that takes it begins, and hold up its sender until it is awaited.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple, TypeAlias

from joulepath_planner.arguments import checked
from joulepath_planner.errors import ScheduleError
from joulepath_planner.inputs.instruction import FIXED, Instruction, StageKind
from joulepath_planner.inputs.pipeline import Link
from joulepath_planner.inputs.schedule import Schedule

__all__ = ["Dependencies", "Need", "dependencies"]


class Need(NamedTuple):
    """The instruction whose result is taken, the one after whose end it is there (as a rule the same), and how it comes
    from another rank; None where nothing comes from there: the own rank's results, or a receiver's being ready."""

    result: Instruction
    after: Instruction
    link: Link | None


Dependencies: TypeAlias = dict[Instruction, tuple[Need, ...]]


@checked
def dependencies(schedule: Schedule) -> Dependencies:
    """What each instruction waits for, other than its predecessor on its rank; none comes before what it waits for.

    Raises:
        ScheduleError: An instruction waits for one that nobody executes, or for itself in the end.
    """
    # By numbers and plain tuples: several times as fast as by instructions, and large pipelines have many.
    everything = [one for order in schedule.orders for one in order]
    rank_of = [rank for rank, order in enumerate(schedule.orders) for _ in order]
    number = {
        (half.stage, half.kind, half.microbatch): index
        for index, one in enumerate(everything)
        for half in ((one,) if len(one.kind) == 1 else one.halves)
    }
    places = (
        {one: index for index, one in enumerate(everything)} if schedule.sent_after or schedule.awaited_before else {}
    )
    sent, awaited = (
        {places[one]: places[at] for one, at in moved.items()}
        for moved in (schedule.sent_after, schedule.awaited_before)
    )
    firsts = {0, *accumulate(map(len, schedule.orders))}
    last = schedule.stages - 1
    needs: list[list[tuple[int, int, Link | None]]] = [[] for _ in everything]
    for taker, whole in enumerate(everything):
        for one in (whole,) if len(whole.kind) == 1 else whole.halves:
            for stage, kind in _results(one, last, number):
                result = number[stage, kind, one.microbatch]
                if rank_of[result] == rank_of[taker]:
                    needs[taker].append((result, result, None))
                    continue
                end, begin = sent.get(result, result), awaited.get(taker, taker)
                needs[begin].append((result, end, (stage, one.stage, kind)))
                if everything[result] in schedule.held and end + 1 not in firsts and begin not in firsts:
                    needs[end + 1].append((begin - 1, begin - 1, None))
    after = [[end for _, end, _ in some] for some in needs]
    ordered = _ordered(schedule, after)
    if len(ordered) < len(everything):
        raise ScheduleError(_deadlock(schedule, everything, after, set(ordered)))
    return {
        everything[index]: tuple(Need(everything[result], everything[end], link) for result, end, link in needs[index])
        for index in ordered
    }


def _results(one: Instruction, last: int, number: dict[tuple[int, str, int], int]) -> list[StageKind]:
    """The instructions of the same microbatch whose results this one takes."""

    def found(stage: int, kinds: str) -> StageKind:
        for kind in kinds:
            if (stage, kind, one.microbatch) in number:
                return stage, kind
        raise ScheduleError(f"{one.label} needs {stage}:{kinds[-1]}{one.microbatch}, which no rank executes.")

    stage = one.stage
    if one.kind == "F":
        return [found(stage - 1, "F")] if stage else []
    if one.kind in "BI":
        own = found(stage, "CF")
        return [own, found(stage + 1, "IB")] if stage < last else [own]
    return [] if one.kind == FIXED else [found(stage, "I" if one.kind == "W" else "F")]


def _ordered(schedule: Schedule, after: list[list[int]]) -> list[int]:
    """The numbers of all instructions that can run, as breadth-first as they get ready."""
    missing = [len(sources) for sources in after]
    targets: list[list[int]] = [[] for _ in after]
    for index, sources in enumerate(after):
        for source in sources:
            targets[source].append(index)
    first = 0
    for order in schedule.orders:
        for index in range(first, first + len(order) - 1):
            targets[index].append(index + 1)
            missing[index + 1] += 1
        first += len(order)
    ordered = [index for index, count in enumerate(missing) if not count]
    for index in ordered:  # grows while it is read
        for target in targets[index]:
            missing[target] -= 1
            if not missing[target]:
                ordered.append(target)
    return ordered


def _deadlock(schedule: Schedule, everything: list[Instruction], after: list[list[int]], done: set[int]) -> str:
    """Which ranks wait for each other, each in the instruction that it has come to."""
    rank_of = schedule.rank_of
    heads: dict[int, Instruction] = {}
    awaited: dict[int, Instruction] = {}
    for index, one in enumerate(everything):
        if index not in done and (rank := rank_of[one.stage]) not in heads:
            heads[rank] = one
            awaited[rank] = everything[next(source for source in after[index] if source not in done)]
    rank = next(iter(heads))
    visited: list[int] = []
    while rank not in visited:
        visited.append(rank)
        rank = rank_of[awaited[rank].stage]
    waits = []
    for waiting in visited[visited.index(rank) :]:
        other = rank_of[awaited[waiting].stage]
        more = "" if awaited[waiting] == heads[other] else f", which rank {other} runs after {heads[other].label}"
        waits.append(f"rank {waiting} runs {heads[waiting].label} only after {awaited[waiting].label}{more}")
    return f"the schedule never ends: {'; '.join(waits)}. Reorder these."
