"""Ranks that exchange messages as frameworks do: a simulator of its own, which knows neither graph nor referee.

Each rank has a program of steps: it awaits what an instruction takes, runs an instruction, sends what one made. A pair
runs as one, between what both of its instructions await and send.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from joulepath_planner import Instruction, Schedule
from joulepath_planner.inputs.pipeline import Link

__all__ = [
    "APART",
    "HELD",
    "INTERLEAVED",
    "SENT_TOGETHER",
    "TOGETHER",
    "Exchanging",
    "Ran",
    "StuckError",
    "play",
    "text",
]


class StuckError(Exception):
    """Ranks wait for each other."""


@dataclass(frozen=True, slots=True)
class Exchanging:
    """steps: the kinds of instructions that, one right behind the other, are one step, such as `FB`. Whether what both
    need is awaited before the first, and what both made is sent behind the last. held: whether sends wait for it to be
    taken. interleaved: whether an F and a B behind it run as one."""

    steps: str = ""
    awaits_together: bool = False
    sends_together: bool = False
    held: bool = False
    interleaved: bool = False


APART: Final = Exchanging()
HELD: Final = Exchanging(held=True)
INTERLEAVED: Final = Exchanging("FB", awaits_together=True, sends_together=True, interleaved=True)
TOGETHER: Final = Exchanging("FB", awaits_together=True, sends_together=True)
SENT_TOGETHER: Final = Exchanging("FB", sends_together=True)


class Ran(NamedTuple):
    """An instruction as it ran."""

    instruction: Instruction
    start_s: float
    end_s: float


def play(
    schedule: Schedule,
    exchanging: Exchanging,
    seconds: Mapping[Instruction, float],
    *,
    transfer_s: Mapping[Link, float],
    gap_s: Mapping[tuple[int, str], float],
    tail_s: Mapping[int, float],
    iterations: int = 6,
) -> tuple[float, list[list[Ran]]]:
    """The time of an iteration, and the last one of each rank.

    Raises:
        StuckError: There is none.
    """
    programs = [list(_program(order, exchanging)) for order in schedule.orders]
    ends = [0.0] * len(programs)
    finished: list[float] = []
    ran: list[list[Ran]] = []
    for _ in range(iterations):
        ran = _play_once(schedule, programs, exchanging.held, ends, seconds, transfer_s, gap_s)
        ends = [
            row[-1].end_s + sum(tail_s.get(stage, 0.0) for stage in {one.instruction.stage for one in row})
            for row in ran
        ]
        finished.append(max(ends))
    return (finished[-1] - finished[1]) / (iterations - 2), ran


def text(schedule: Schedule, exchanging: Exchanging) -> list[list[str]]:
    """The same as an order with its marks: a step at a time."""
    rank_of, orders = schedule.rank_of, list[list[str]]()
    for order in schedule.orders:
        words: list[str] = []
        for group in _groups(order, exchanging):
            if len(group) > 1 and exchanging.interleaved:
                both = _pair(group).label
                words += [both] + [f">>{both}"] * (exchanging.held and any(_leaves(one, rank_of) for one in group))
                continue
            sends = exchanging.sends_together and len(group) > 1
            if exchanging.awaits_together:
                words += [f"<{one.label}" for one in group[1:]]
            for one in group:
                words.append(one.label)
                travels = exchanging.held and _leaves(one, rank_of)
                if travels and not sends:
                    words.append(f">>{one.label}")
            if sends:
                words += [f"{'>>' if exchanging.held and _leaves(one, rank_of) else '>'}{one.label}" for one in group]
        orders.append(words)
    return orders


def _leaves(one: Instruction, rank_of: Mapping[int, int]) -> bool:
    to = {"F": one.stage + 1, "B": one.stage - 1, "I": one.stage - 1}.get(one.kind, -1)
    return to in rank_of and rank_of[to] != rank_of[one.stage]


def _groups(order: Sequence[Instruction], exchanging: Exchanging) -> list[list[Instruction]]:
    groups: list[list[Instruction]] = []
    for one in order:
        two = [*groups[-1][-1:], one] if groups else [one]
        alike = exchanging.interleaved and len({(each.stage, each.microbatch) for each in two}) == 1
        if exchanging.steps and not alike and "".join(each.kind for each in two) == exchanging.steps:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _pair(group: Sequence[Instruction]) -> Instruction:
    forward, backward = group
    return Instruction(forward.stage, f"F&{backward.stage}:B", forward.microbatch, backward.microbatch)


def _program(order: Sequence[Instruction], exchanging: Exchanging) -> list[tuple[str, Instruction]]:
    steps: list[tuple[str, Instruction]] = []
    for group in _groups(order, exchanging):
        if len(group) > 1 and exchanging.interleaved:
            steps += [("await", one) for one in group] + [("run", _pair(group))] + [("send", one) for one in group]
            continue
        runs = [[("await", one), ("run", one), ("send", one)] for one in group]
        flat = [step for run in runs for step in run]
        if exchanging.awaits_together:
            flat.sort(key=lambda step: step[0] != "await")
        if exchanging.sends_together:
            flat.sort(key=lambda step: step[0] == "send")
        steps += flat
    return steps


def _play_once(
    schedule: Schedule,
    programs: Sequence[Sequence[tuple[str, Instruction]]],
    held: bool,
    ready_s: Sequence[float],
    seconds: Mapping[Instruction, float],
    transfer_s: Mapping[Link, float],
    gap_s: Mapping[tuple[int, str], float],
) -> list[list[Ran]]:
    """One iteration: each rank goes on as far as it can, in turn, until all have ended."""
    rank_of, everything = schedule.rank_of, {one for order in schedule.orders for one in order}
    ends, floors, places = list(ready_s), list(ready_s), [0] * len(programs)
    sent_s, posted_s = dict[Instruction, float](), dict[Instruction, float]()
    ran: list[list[Ran]] = [[] for _ in programs]
    waits: list[list[Instruction]] = [[] for _ in programs]
    """Of each rank, what it has sent and waits for to be taken."""
    moved = True
    while moved:
        moved = False
        for rank, program in enumerate(programs):
            while places[rank] < len(program):
                what, one = program[places[rank]]
                sources = [other for other in _sources(one) if other in everything and rank_of[other.stage] != rank]
                if what == "await":
                    for source in sources:
                        posted_s[source] = ends[rank] if ran[rank] else float("-inf")
                    if any(source not in sent_s for source in sources):
                        break
                    for source in sources:
                        link = source.stage, one.stage, source.kind
                        floors[rank] = max(floors[rank], sent_s[source] + transfer_s.get(link, 0.0))
                elif what == "run":
                    if any(source not in posted_s for source in waits[rank]):
                        break
                    floors[rank] = max([floors[rank], *(posted_s[source] for source in waits[rank])])
                    waits[rank].clear()
                    start = max(ends[rank] + gap_s.get((one.stage, one.kind), 0.0), floors[rank])
                    ends[rank] = start + seconds[one]
                    ran[rank].append(Ran(one, start, ends[rank]))
                elif _leaves(one, rank_of):
                    sent_s[one] = ends[rank]
                    waits[rank] += [one] * held
                places[rank] += 1
                moved = True
    if any(place < len(program) for place, program in zip(places, programs, strict=True)):
        raise StuckError
    return ran


def _sources(one: Instruction) -> list[Instruction]:
    if one.kind == "F":
        return [Instruction(one.stage - 1, "F", one.microbatch)]
    return [Instruction(one.stage + 1, kind, one.microbatch) for kind in "BI"] if one.kind in "BI" else []
