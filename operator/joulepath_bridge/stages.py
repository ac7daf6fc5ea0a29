"""A plan as the contract has it: what each stage is told."""

from __future__ import annotations

from joulepath_crds import StagePlan
from joulepath_planner import Plan, PlannedInstruction

__all__ = ["stage_plans"]


def stage_plans(plan: Plan, default_clock_mhz: int) -> tuple[StagePlan, ...]:
    """By stage, in the order of its rank. A clock of 0 is the default one."""
    by_stage: dict[int, list[PlannedInstruction]] = {}
    for rank in plan.ranks:
        for one in rank.instructions:
            by_stage.setdefault(one.instruction.stage, []).append(one)
    return tuple(
        StagePlan(
            stage=stage,
            order=tuple(str(one.instruction) for one in planned),
            clocks_mhz=tuple(
                0 if one.clock_mhz in (None, default_clock_mhz) else one.clock_mhz or 0 for one in planned
            ),
            # Six digits: an object of the API holds 1.5 MB, and a large pipeline has tens of thousands of them.
            durations_s=tuple(float(f"{one.duration_s:.6g}") for one in planned),
        )
        for stage, planned in sorted(by_stage.items())
    )
