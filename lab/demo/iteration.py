"""One iteration as a picture needs it: boxes on one common time axis, with power and critical path.

Each rank reports median begin and end of its instructions from its own iteration's begin; ranks don't share a clock.
Two of them are aligned by what passes between them: something goes one way, something else the other, and with the
least waits of both the offset is half their difference, the delay half their sum. (Where a rank is several times faster
than its neighbour, one of them never waits; then the axis is off by half of that slack.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf

from joulepath_cli.pictures.timeline_svg import Box
from joulepath_crds import Instruction, InstructionTime

__all__ = ["Box", "Power", "boxes", "critical_path", "offsets"]

Power = Callable[[int, str], float | None]
"""Watts of an instruction ("F0") on a stage; None if not known."""


def _senders(one: Instruction) -> tuple[Instruction, ...]:
    """What an instruction may wait for on other stages."""
    found: list[Instruction] = []
    for half in one.halves:
        kinds, stage = (
            ("F", half.stage - 1) if half.kind == "F" else ("BI" if half.kind in "BI" else "", half.stage + 1)
        )
        found += (Instruction(stage, kind, half.microbatch) for kind in kinds)
    return tuple(found)


def offsets(ranks: Mapping[int, Sequence[InstructionTime]]) -> dict[int, float]:
    """What to add to the times of each rank, by its place in the pipeline; those of the first are the reference.

    Raises:
        ValueError: A rank exchanges nothing with the others, so that it can't be aligned.
    """
    everything = [
        (Instruction.parse(item.instruction, item.stage), rank, item) for rank, items in ranks.items() for item in items
    ]
    ran = {half: (rank, item) for one, rank, item in everything for half in one.halves}
    least: dict[tuple[int, int], float] = {}
    for one, rank, item in everything:
        for source in _senders(one):
            if source in ran and ran[source][0] != rank:
                way, wait_s = (ran[source][0], rank), item.begin_s - ran[source][1].end_s
                least[way] = min(wait_s, least.get(way, inf))
    found = {min(ranks): 0.0} if ranks else {}
    while left := sorted(ranks.keys() - found.keys()):
        ways = [(a, b) for a, b in least if a in found and b in left and (b, a) in least]
        if not ways:
            raise ValueError(f"rank {left[0]} of the pipeline shares no forward or no backward with another one")
        known, new = min(ways)
        found[new] = found[known] + (least[new, known] - least[known, new]) / 2
    return found


def critical_path(placed: Sequence[Box]) -> set[tuple[int, str]]:
    """The chain that determines the end: from the last box back, always by the predecessor that ended last."""
    by_row: dict[int, list[Box]] = {}
    for box in placed:
        by_row.setdefault(box.row, []).append(box)
    by_name = {half: box for box in placed for half in _parsed(box).halves}
    path: set[tuple[int, str]] = set()
    at = max(placed, key=lambda box: box.end_s, default=None)
    while at is not None and (at.stage, at.instruction) not in path:
        path.add((at.stage, at.instruction))
        begin_s = at.begin_s
        before = [box for box in by_row[at.row] if box.begin_s < begin_s]
        sent = [by_name[one] for one in _senders(_parsed(at)) if one in by_name]
        own = [max(before, key=lambda box: box.begin_s)] if before else []
        at = max(own + sent, key=lambda box: box.end_s, default=None)
    return path


def boxes(ranks: Mapping[int, Sequence[InstructionTime]], power: Power) -> tuple[Box, ...]:
    """All instructions on one axis that begins at 0, with their power, the critical path marked.

    ranks: by place in the pipeline. Each is a row, which bears its stage's name where it has but one.
    """
    shift = offsets(ranks)
    several = any(len({item.stage for item in items}) > 1 for items in ranks.values())
    placed = [
        Box(
            item.stage,
            Instruction.parse(item.instruction, item.stage).name,
            item.begin_s + shift[rank],
            item.end_s + shift[rank],
            power(item.stage, Instruction.parse(item.instruction, item.stage).name),
            rank=rank if several else None,
        )
        for rank, items in ranks.items()
        for item in items
    ]
    origin = min((box.begin_s for box in placed), default=0.0)
    path = critical_path(placed)
    return tuple(_moved(box, -origin, (box.stage, box.instruction) in path) for box in _by_begin(placed))


def _parsed(box: Box) -> Instruction:
    return Instruction.parse(box.instruction, box.stage)


def _by_begin(placed: Iterable[Box]) -> list[Box]:
    return sorted(placed, key=lambda box: (box.row, box.begin_s))


def _moved(box: Box, by_s: float, critical: bool) -> Box:
    return replace(box, begin_s=box.begin_s + by_s, end_s=box.end_s + by_s, critical=critical)
