"""The score: a plan as one rank plays it, its instructions in the order in which the rank runs them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from joulepath_clocks.gpus.lease import End
from joulepath_clocks.gpus.wish import DEFAULT
from joulepath_clocks.ranks.reason import Obstacle, Reason
from joulepath_rules import Instruction, Plan

__all__ = ["Score", "read_score"]


@dataclass(frozen=True, slots=True)
class Score:
    """Instruction by instruction: its clock and its predicted duration."""

    instructions: tuple[Instruction, ...]
    clocks_mhz: tuple[int, ...]
    durations_s: tuple[float, ...]


def read_score(plan: Plan, stages: Sequence[int], recorded: tuple[Instruction, ...]) -> Score | Reason:
    """What a rank of these stages plays, or why it can't yet.

    `recorded` is the order in which it ran its instructions; empty while unknown.
    """
    planned: dict[Instruction, tuple[int, float]] = {}
    own = set(stages)
    for part in plan.stages:
        if part.stage not in own:
            continue
        for label, clock, duration in zip(part.order, part.clocks_mhz, part.durations_s, strict=True):
            instruction = _parsed(label, part.stage)
            if instruction is None or instruction in planned:
                return Reason(
                    Obstacle.PLAN_UNREADABLE,
                    f"stage {part.stage} has an instruction {label!r} that is unknown or double",
                )
            planned[instruction] = (DEFAULT if clock >= plan.default_clock_mhz else clock, duration)
    found = {instruction.stage for instruction in planned}
    if found != own:
        return Reason(Obstacle.STAGE_MISSING, f"the plan has stages {sorted(found)}, this rank runs {stages}")
    if len(stages) > 1 and not recorded:
        return Reason(Obstacle.ORDER_UNKNOWN, "the order of this rank's stages hasn't been recorded yet")
    order = recorded or tuple(planned)
    if set(order) != set(planned) or (len(stages) == 1 and order != tuple(planned)):
        return Reason(End.ORDER_MISMATCH, "the plan's instructions or their order are not those that this rank runs")
    return Score(order, tuple(planned[one][0] for one in order), tuple(planned[one][1] for one in order))


def _parsed(label: str, stage: int) -> Instruction | None:
    try:
        return Instruction.parse(label, stage)
    except ValueError:
        return None
