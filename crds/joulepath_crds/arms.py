"""Arms: which iterations run the plan, and which run at default clocks to compare with.

It follows from the JobPlan and the iteration's number alone, without messages:

- before `activateAt` (or while it is absent) everything runs at default clocks; the plan is staged;
- `purpose: Sweep`: from `activateAt` on, sweep block i (`iterationsPerBlock` iterations) holds every rank at
  `clocksMHz[i]`; after the last block, default clocks again;
- `purpose: Enforce`: from `activateAt` on, `pairs` pairs of blocks, a plan block and a control block (default
  clocks) each, in an order drawn from the plan's hash; after the last pair the plan stays.

A rank whose attempt differs, or who hears of it after `activateAt`, runs default clocks
until the next block begins.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

from joulepath_crds.jobplan import JobPlanSpec, Purpose

__all__ = ["Arm", "arm_of", "next_boundary"]


class Arm(StrEnum):
    """What an iteration runs."""

    DEFAULT = "default"
    CONTROL = "control"
    PLAN = "plan"
    SWEEP = "sweep"


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
    """The first iteration after `iteration` at which a block begins: where a rank that is late joins."""
    if spec.activate_at is None:
        return iteration + 1
    if iteration < spec.activate_at:
        return spec.activate_at
    if spec.purpose is Purpose.SWEEP and spec.sweep is not None:
        length = spec.sweep.iterations_per_block
    else:
        length = spec.blocks.iterations if spec.blocks is not None else 1
    return spec.activate_at + ((iteration - spec.activate_at) // length + 1) * length
