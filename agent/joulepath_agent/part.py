"""A rank's part of a JobPlan: what the clocks are told of it. Pure."""

from __future__ import annotations

from collections.abc import Collection

from joulepath_crds import JobPlanSpec
from joulepath_rules import Blocks, Plan, StagePlan, Sweep

__all__ = ["part_of"]


def part_of(plan: JobPlanSpec, stages: Collection[int]) -> Plan:
    """The part of a rank that runs these stages."""
    own = (one for one in plan.stages if one.stage in stages)
    sweep, blocks = plan.sweep, plan.blocks
    return Plan(
        hash=plan.hash,
        purpose=plan.purpose,
        default_clock_mhz=plan.default_clock_mhz,
        attempt=plan.attempt,
        activate_at=plan.activate_at,
        sparse_from=plan.sparse_from,
        sweep=None if sweep is None else Sweep(sweep.clocks_mhz, sweep.iterations_per_block, sweep.to_and_fro_mhz),
        blocks=None if blocks is None else Blocks(blocks.iterations, blocks.pairs, blocks.every),
        stages=tuple(StagePlan(one.stage, one.order, one.clocks_mhz, one.durations_s) for one in own),
        control_iteration_time_s=plan.control_iteration_time_s,
        plan_iteration_time_s=plan.plan_iteration_time_s,
        allowed_slowdown=plan.allowed_slowdown,
    )
