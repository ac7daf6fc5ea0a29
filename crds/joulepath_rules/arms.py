"""Arms: which iterations run the plan, and which run at default clocks to compare with.

It follows from the JobPlan and the iteration's number alone, without messages:

- before `activateAt` (or while it is absent) everything runs at default clocks; the plan is staged;
- `purpose: Sweep`: from `activateAt` on, sweep block i (`iterationsPerBlock` iterations) holds every rank at
  `clocksMHz[i]`, or to and fro between that and `toAndFroMHz[i]`, see `clock_in_turn`; after the last block, default
  clocks again;
- `purpose: Enforce`: from `activateAt` on, pairs of blocks, a plan block and a control block (default clocks) each, in
  an order drawn from the plan's hash. At first they are dense: one follows the other, until `sparseFrom` or until
  there were `pairs` of them. From then on they are sparse: one of each `every`, its place drawn from the plan's hash,
  is such a pair, and the others run the plan alone.

The sparse pairs are the same whenever they begin: a rank that hears late of `sparseFrom` runs default clocks in a few
blocks more. One that knows no sparse pairs, of an older version, runs the plan in them, and they don't count.

A rank whose attempt differs, or who hears of it after `activateAt`, runs default clocks
until the next block begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from joulepath_rules.digest import sha256
from joulepath_rules.plan import Purpose

__all__ = ["Arm", "SweptBlocks", "Timetable", "arm_of", "clock_in_turn", "held_clock_mhz", "next_boundary"]


class Arm(StrEnum):
    """What an iteration runs."""

    DEFAULT = "default"
    CONTROL = "control"
    PLAN = "plan"
    SWEEP = "sweep"


class SweptBlocks(Protocol):
    """What of a sweep says which clocks its blocks have."""

    @property
    def clocks_mhz(self) -> Sequence[int]: ...
    @property
    def iterations_per_block(self) -> int: ...
    @property
    def to_and_fro_mhz(self) -> Sequence[int]: ...


class _Blocks(Protocol):
    @property
    def iterations(self) -> int: ...
    @property
    def pairs(self) -> int: ...
    @property
    def every(self) -> int | None: ...


class Timetable(Protocol):
    """What of a plan says when: a `Plan`, or the API's JobPlanSpec."""

    @property
    def hash(self) -> str: ...
    @property
    def purpose(self) -> Purpose: ...
    @property
    def activate_at(self) -> int | None: ...
    @property
    def sparse_from(self) -> int | None: ...
    @property
    def sweep(self) -> SweptBlocks | None: ...
    @property
    def blocks(self) -> _Blocks | None: ...


def arm_of(spec: Timetable, iteration: int) -> tuple[Arm, int]:
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
    if not _is_dense(spec.blocks, pair, spec.activate_at, spec.sparse_from) and not _is_drawn(spec, spec.blocks, pair):
        return Arm.PLAN, -1
    coin = sha256(f"{spec.hash}/{pair}".encode()).digest()[0] & 1
    return (Arm.PLAN if coin == second else Arm.CONTROL), block


def held_clock_mhz(sweep: SweptBlocks, block: int) -> int | None:
    """The one clock of a sweep's block; None where two take turns."""
    clock = sweep.clocks_mhz[block]
    return None if sweep.to_and_fro_mhz and sweep.to_and_fro_mhz[block] != clock else clock


def clock_in_turn(spec: Timetable, iteration: int, place: int) -> int:
    """The clock of a sweep's block for the instruction at this place of the rank's order.

    Where two take turns, each iteration begins with the other one: all instructions run as often at the one as at the
    other.
    """
    assert spec.sweep is not None
    assert spec.activate_at is not None
    block, at = divmod(iteration - spec.activate_at, spec.sweep.iterations_per_block)
    clock = spec.sweep.clocks_mhz[block]
    return spec.sweep.to_and_fro_mhz[block] if spec.sweep.to_and_fro_mhz and (at + place) % 2 else clock


def next_boundary(spec: Timetable, iteration: int) -> int:
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


def _is_dense(blocks: _Blocks, pair: int, activate_at: int, sparse_from: int | None) -> bool:
    begins = activate_at + 2 * pair * blocks.iterations
    return pair < blocks.pairs and (sparse_from is None or begins < sparse_from)


def _is_drawn(spec: Timetable, blocks: _Blocks, pair: int) -> bool:
    """Whether it is the one of its window that is measured when pairs are sparse."""
    if blocks.every is None:
        return False
    window, place = divmod(pair, blocks.every)
    drawn = sha256(f"{spec.hash}/window/{window}".encode()).digest()
    return place == int.from_bytes(drawn[:4]) % blocks.every
