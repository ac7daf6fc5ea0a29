"""The referee's own rules of what waits for what, apart from the solver's.

The orders are executed once, without time: rank after rank goes as far as its inputs have come. What this yields is an
order of all instructions that every rank's order and every message agree with, the same for every iteration.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from itertools import pairwise
from typing import NamedTuple

from joulepath_planner.errors import ScheduleError
from joulepath_planner.inputs.instruction import FIXED, Instruction
from joulepath_planner.inputs.pipeline import Pipeline

__all__ = ["ScriptedInstruction", "script"]


class ScriptedInstruction(NamedTuple):
    """One instruction in an order of execution that every rank's order and every message agree with."""

    instruction: Instruction
    rank: int
    gap_s: float
    extra_s: float
    inputs: tuple[tuple[int, float], ...]
    """(place in the script of what sends, seconds on the way)"""


def script(pipeline: Pipeline) -> list[ScriptedInstruction]:
    """The script of one iteration.

    Raises:
        ScheduleError: A rank waits forever.
    """
    schedule, last_stage = pipeline.schedule, pipeline.schedule.stages - 1
    known = {half: one for order in schedule.orders for one in order for half in one.halves}
    """Of what takes and makes messages, the instruction that it is, or is a half of."""
    rank_of = {one.stage: rank for rank, order in enumerate(schedule.orders) for one in order}
    calls: dict[Instruction, list[Instruction]] = {one: [one] for one in known.values()}
    """Whose messages are awaited before an instruction begins; its own rank's results only itself awaits."""
    for taker, caller in schedule.awaited_before.items():
        calls[taker].remove(taker)
        calls[caller].append(taker)
    readiness = _readiness(pipeline, calls, known)
    done: dict[Instruction, int] = {}
    waiting: dict[Instruction, list[int]] = {}
    cursor = [0] * len(schedule.orders)
    found: list[ScriptedInstruction] = []
    awake = deque(range(len(schedule.orders)))
    while awake:
        rank = awake.popleft()
        order = schedule.orders[rank]
        while cursor[rank] < len(order):
            one = order[cursor[rank]]
            local = [
                (sender, half, known.get(sender, sender))
                for half in one.halves
                for sender in _senders(half, last_stage, known)
                if rank_of[sender.stage] == rank
            ]
            messages = [
                (sender, half, schedule.sent_after.get(whole, whole))
                for taker in calls[one]
                for half in taker.halves
                for sender in _senders(half, last_stage, known)
                for whole in (known.get(sender, sender),)
                if rank_of[sender.stage] != rank
            ]
            needed = [leaves for _, _, leaves in (*local, *messages)] + readiness.get(one, [])
            if missing := [other for other in needed if other not in done]:
                waiting.setdefault(missing[0], []).append(rank)
                break
            inputs = tuple(
                (done[leaves], pipeline.transfer_s.get((sender.stage, taker.stage, sender.kind), 0.0))
                for sender, taker, leaves in (*local, *messages)
            ) + tuple((done[other], 0.0) for other in readiness.get(one, ()))
            done[one] = len(found)
            found.append(ScriptedInstruction(one, rank, pipeline.gap(one), pipeline.extra(one), inputs))
            cursor[rank] += 1
            awake.extend(waiting.pop(one, ()))
    for rank, (at, order) in enumerate(zip(cursor, schedule.orders, strict=True)):
        if at < len(order):
            raise ScheduleError(f"rank {rank} waits forever for the input of {order[at].label}.")
    return found


def _readiness(
    pipeline: Pipeline, calls: dict[Instruction, list[Instruction]], known: dict[Instruction, Instruction]
) -> dict[Instruction, list[Instruction]]:
    """What has ended on other ranks before an instruction begins, since a message holds up its rank until then."""
    schedule, found = pipeline.schedule, dict[Instruction, list[Instruction]]()
    if not schedule.held:
        return found
    rank_of = schedule.rank_of
    behind = {one: after for order in schedule.orders for one, after in pairwise(order)}
    for busy, caller in (two for order in schedule.orders for two in pairwise(order)):
        for half in (half for taker in calls[caller] for half in taker.halves):
            for sender in (known.get(one, one) for one in _senders(half, schedule.stages - 1, known)):
                held_up = behind.get(schedule.sent_after.get(sender, sender))
                if sender in schedule.held and rank_of[sender.stage] != rank_of[half.stage] and held_up is not None:
                    found.setdefault(held_up, []).append(busy)
    return found


def _senders(one: Instruction, last_stage: int, known: Collection[Instruction]) -> list[Instruction]:
    """What sends an instruction its input, the own stage's included: activations go up, gradients down."""
    stage, microbatch = one.stage, one.microbatch
    if one.kind == "F":
        return [Instruction(stage - 1, "F", microbatch)] if stage else []
    if one.kind == FIXED:
        return []
    if one.kind == "W":
        return [Instruction(stage, "I", microbatch)]
    own = [Instruction(stage, "F", microbatch)]
    if one.kind == "C":
        return own
    if (again := Instruction(stage, "C", microbatch)) in known:
        own = [again]
    if stage == last_stage:
        return own
    above = [Instruction(stage + 1, kind, microbatch) for kind in "BI"]
    return own + [sender for sender in above if sender in known or (sender.kind == "B" and above[1] not in known)]
