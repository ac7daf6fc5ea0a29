"""A rank's part of a JobPlan: what the clocks are told of it. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from joulepath_crds import JobPlanSpec
from joulepath_rules import Blocks, Plan, StagePlan, Sweep

__all__ = ["part_of"]


def part_of(plan: JobPlanSpec, stages: Collection[int], data: int = 0) -> Plan:
    """The part of a rank that runs these stages in that replica."""
    own = tuple(StagePlan(s.stage, s.order, s.clocks_mhz, s.durations_s) for s in plan.stages if s.stage in stages)
    sweep, blocks, stretched = plan.sweep, plan.blocks, plan.stretched
    if stretched is not None and data in stretched.default_replicas:
        own = tuple(replace(one, clocks_mhz=(0,) * len(one.order)) for one in own)
    elif stretched is not None and data in stretched.replicas:
        slower = {one.stage: one for one in stretched.stages}
        own = tuple(
            replace(one, clocks_mhz=slower[one.stage].clocks_mhz, durations_s=slower[one.stage].durations_s)
            for one in own
            if one.stage in slower
        )
    timed = plan if stretched is None else stretched
    return Plan(
        hash=plan.hash,
        purpose=plan.purpose,
        default_clock_mhz=plan.default_clock_mhz,
        attempt=plan.attempt,
        activate_at=plan.activate_at,
        sparse_from=plan.sparse_from,
        sweep=None if sweep is None else Sweep(sweep.clocks_mhz, sweep.iterations_per_block, sweep.to_and_fro_mhz),
        blocks=None if blocks is None else Blocks(blocks.iterations, blocks.pairs, blocks.every),
        stages=own,
        control_iteration_time_s=timed.control_iteration_time_s,
        plan_iteration_time_s=timed.plan_iteration_time_s,
        allowed_slowdown=plan.allowed_slowdown,
    )
