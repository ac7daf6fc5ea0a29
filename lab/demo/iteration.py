"""One iteration as a picture needs it: boxes on one common time axis, with power and critical path.

Each rank reports median begin and end of its instructions from its own iteration's begin; ranks don't share a clock.
Two neighbours are aligned by what passes between them: an activation goes one way, a gradient the other, and with the
least waits of both the offset is half their difference, the delay half their sum. (Where a stage is several times
faster than its neighbour, one of them never waits; then the axis is off by half of that slack.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from joulepath_cli.pictures.timeline_svg import Box
from joulepath_crds import InstructionTime

__all__ = ["Box", "Power", "boxes", "critical_path", "offsets"]

Power = Callable[[int, str], float | None]
"""Watts of an instruction ("F0") on a stage; None if not known."""


def _lag(before: Sequence[InstructionTime], after: Sequence[InstructionTime], kinds: str) -> float | None:
    """Least seconds from the end of an instruction to the begin of the same one on the next stage."""
    ends = {item.instruction: item.end_s for item in before if item.instruction[0] in kinds}
    waits = [item.begin_s - ends[item.instruction] for item in after if item.instruction in ends]
    return min(waits, default=None)


def offsets(stages: Mapping[int, Sequence[InstructionTime]]) -> dict[int, float]:
    """What to add to each stage's times; the first stage's are the reference.

    Raises:
        ValueError: Two neighbours exchange nothing in one direction, so that they can't be aligned.
    """
    order = sorted(stages)
    found = {order[0]: 0.0} if order else {}
    for stage, following in pairwise(order):
        down = _lag(stages[stage], stages[following], "F")
        up = _lag(stages[following], stages[stage], "BI")
        if down is None or up is None:
            raise ValueError(f"stages {stage} and {following} share no forward or no backward: there is no common axis")
        found[following] = found[stage] + (up - down) / 2
    return found


def _predecessors(box: Box, on_stage: Mapping[int, Sequence[Box]]) -> list[Box]:
    same = [other for other in on_stage[box.stage] if other.begin_s < box.begin_s]
    before = [max(same, key=lambda other: other.begin_s)] if same else []
    neighbour = on_stage.get(box.stage + (-1 if box.kind == "F" else 1), ()) if box.kind in "FBI" else ()
    return before + [other for other in neighbour if other.instruction == box.instruction]


def critical_path(placed: Sequence[Box]) -> set[tuple[int, str]]:
    """The chain that determines the end: from the last box back, always by the predecessor that ended last."""
    on_stage: dict[int, list[Box]] = {}
    for box in placed:
        on_stage.setdefault(box.stage, []).append(box)
    path: set[tuple[int, str]] = set()
    at = max(placed, key=lambda box: box.end_s, default=None)
    while at is not None and (at.stage, at.instruction) not in path:
        path.add((at.stage, at.instruction))
        at = max(_predecessors(at, on_stage), key=lambda box: box.end_s, default=None)
    return path


def boxes(stages: Mapping[int, Sequence[InstructionTime]], power: Power) -> tuple[Box, ...]:
    """All instructions on one axis that begins at 0, with their power, the critical path marked."""
    shift = offsets(stages)
    placed = [
        Box(
            stage,
            item.instruction,
            item.begin_s + shift[stage],
            item.end_s + shift[stage],
            power(stage, item.instruction),
        )
        for stage, items in stages.items()
        for item in items
    ]
    origin = min((box.begin_s for box in placed), default=0.0)
    path = critical_path(placed)
    return tuple(_moved(box, -origin, (box.stage, box.instruction) in path) for box in _by_begin(placed))


def _by_begin(placed: Iterable[Box]) -> list[Box]:
    return sorted(placed, key=lambda box: (box.stage, box.begin_s))


def _moved(box: Box, by_s: float, critical: bool) -> Box:
    return Box(box.stage, box.instruction, box.begin_s + by_s, box.end_s + by_s, box.power_w, critical)
