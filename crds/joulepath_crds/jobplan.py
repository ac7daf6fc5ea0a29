"""JobPlan: what the operator tells the agents of a job's nodes. One object, clocks by stage, however many nodes.

Which iterations run what follows from this object and the iteration's number alone, without messages:

- before ``activateAt`` (or while it is absent) everything runs at default clocks; the plan is staged;
- ``purpose: Sweep``: from ``activateAt`` on, sweep block i (``iterationsPerBlock`` iterations) holds every rank at
  ``clocksMHz[i]``; after the last block, default clocks again;
- ``purpose: Enforce``: from ``activateAt`` on, ``pairs`` pairs of blocks, a plan block and a control block (default
  clocks) each, in an order drawn from the plan's hash; after the last pair the plan stays.

``arm_of`` is that rule. A rank whose attempt differs, or who hears of it after ``activateAt``, runs default clocks
until the next block begins.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from joulepath_crds.contract import Contract

__all__ = [
    "Arm",
    "Blocks",
    "JobPlanSpec",
    "Purpose",
    "StagePlan",
    "Sweep",
    "arm_of",
    "content_hash",
    "next_boundary",
]


class Purpose(StrEnum):
    """What the plan is for."""

    SWEEP = "Sweep"
    ENFORCE = "Enforce"


class Sweep(Contract):
    """Profiling: all ranks at one clock for a block, then the next clock."""

    clocks_mhz: Annotated[tuple[int, ...], Field(min_length=1, max_length=400)]
    """Clock of each block, in order; 0 is default clocks. The order is random, returns to default are in it."""
    iterations_per_block: Annotated[int, Field(ge=2, le=101)]
    """Iterations of a block; the first is not counted."""


class Blocks(Contract):
    """The measurement of savings."""

    iterations: Annotated[int, Field(ge=3, le=1000)]
    """Iterations of a block; the first and the last are not counted."""
    pairs: Annotated[int, Field(ge=0, le=1000)]
    """Pairs of a plan block and a control block."""


class StagePlan(Contract):
    """The plan of one stage; its data-parallel replicas and tensor-parallel peers share it."""

    stage: Annotated[int, Field(ge=0)]
    """Index of the stage."""
    order: tuple[str, ...]
    """Instructions in order: F0 is the forward of microbatch 0."""
    clocks_mhz: tuple[int, ...]
    """Clock of each instruction; 0 is default clocks."""
    durations_s: tuple[float, ...]
    """Predicted seconds of each instruction."""

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        if not len(self.order) == len(self.clocks_mhz) == len(self.durations_s):
            raise ValueError(
                f"stage {self.stage}: order, clocksMHz and durationsSeconds must have one entry for each instruction, "
                f"they have {len(self.order)}, {len(self.clocks_mhz)} and {len(self.durations_s)}"
            )
        return self


class JobPlanSpec(Contract):
    """What to run, from which iteration on."""

    energy_plan: str
    """Name of the EnergyPlan that this belongs to."""
    job: str
    """Name of the job."""
    job_uid: str
    """UID of the job."""
    attempt: Annotated[int, Field(ge=0)] = 0
    """The attempt (elastic restart) that this was made for."""
    purpose: Purpose
    """Sweep profiles, Enforce saves."""
    hash: str
    """Content hash of all but activateAt: what agents stage and report."""
    activate_at: Annotated[int, Field(ge=0)] | None = None
    """The iteration from which on it is in force; absent until every node has staged it."""
    sweep: Sweep | None = None
    blocks: Blocks | None = None
    stages: tuple[StagePlan, ...] = ()
    """Clocks by stage (Enforce)."""
    default_clock_mhz: Annotated[int, Field(gt=0)]
    """What default clocks amount to on these GPUs."""
    control_iteration_time_s: Annotated[float, Field(ge=0)] = 0.0
    """Expected seconds of an iteration at default clocks; 0 while unknown."""
    plan_iteration_time_s: Annotated[float, Field(ge=0)] = 0.0
    """Expected seconds of an iteration with the plan: the guard compares with it; 0 while unknown."""


class Arm(StrEnum):
    """What an iteration runs."""

    DEFAULT = "default"
    CONTROL = "control"
    PLAN = "plan"
    SWEEP = "sweep"


def content_hash(spec: JobPlanSpec) -> str:
    """The hash that stands for a plan's content (``hash`` and ``activateAt`` apart), 16 hex digits."""
    body = spec.to_api()
    body.pop("activateAt", None)
    body.pop("hash", None)
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def arm_of(spec: JobPlanSpec, iteration: int) -> tuple[Arm, int]:
    """What an iteration runs, and the index of its block (-1 outside of blocks)."""
    if spec.activate_at is None or iteration < spec.activate_at:
        return Arm.DEFAULT, -1
    since = iteration - spec.activate_at
    if spec.purpose is Purpose.SWEEP:
        if spec.sweep is None:
            return Arm.DEFAULT, -1
        block = since // spec.sweep.iterations_per_block
        return (Arm.SWEEP, block) if block < len(spec.sweep.clocks_mhz) else (Arm.DEFAULT, -1)
    if spec.blocks is None:
        return Arm.PLAN, -1
    block = since // spec.blocks.iterations
    pair, second = divmod(block, 2)
    if pair >= spec.blocks.pairs:
        return Arm.PLAN, -1
    coin = hashlib.sha256(f"{spec.hash}/{pair}".encode()).digest()[0] & 1
    return (Arm.PLAN if coin == second else Arm.CONTROL), block


def next_boundary(spec: JobPlanSpec, iteration: int) -> int:
    """The first iteration after ``iteration`` at which a block begins: where a rank that is late joins."""
    if spec.activate_at is None:
        return iteration + 1
    if iteration < spec.activate_at:
        return spec.activate_at
    if spec.purpose is Purpose.SWEEP and spec.sweep is not None:
        length = spec.sweep.iterations_per_block
    else:
        length = spec.blocks.iterations if spec.blocks is not None else 1
    return spec.activate_at + ((iteration - spec.activate_at) // length + 1) * length
