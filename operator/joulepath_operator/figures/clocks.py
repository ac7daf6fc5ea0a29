"""The sweep of clocks that profiles a running job.

From the default clock down to where lower stops paying, denser near the top, where a plan spends most of its choices.
The order is random, so that drift (temperature) doesn't look like an effect of the clock, and comes back to default
clocks every few blocks. It is drawn from the job's UID: an operator that restarts draws the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from joulepath_crds import JobPlanSpec, RankReport, Sweep
from joulepath_operator.figures.order import executed, kind_of, stage_of
from joulepath_operator.figures.savings import LEAST_PAIRS, complete_blocks, estimate

LOWEST_SHARE = 0.6
"""Lowest clock of a sweep, as a share of the default one: on A100 the least effective energy lies above."""
LEAST_CLOCKS = 3
_BLOCKS_BETWEEN_DEFAULTS = 3
_DENSITY = 1.4
_PATIENCE_BLOCKS = 2


def choose_clocks(supported_mhz: Sequence[int], default_mhz: int, count: int) -> tuple[int, ...]:
    """At most `count` supported clocks, highest first, the default one (or the highest below it) among them."""
    usable = sorted({clock for clock in supported_mhz if clock <= default_mhz}, reverse=True)
    if not usable:
        return ()
    span = usable[0] * (1 - LOWEST_SHARE)
    wanted = [usable[0] - span * (index / (count - 1)) ** _DENSITY for index in range(count)]
    return tuple(sorted({min(usable, key=lambda clock: abs(clock - want)) for want in wanted}, reverse=True))


def make_sweep(clocks_mhz: Sequence[int], iterations_per_clock: int, seed: str) -> Sweep:
    """The blocks: 0 stands for default clocks, which are what the first of `clocks_mhz` amounts to."""
    lower = list(clocks_mhz[1:])
    random.Random(seed).shuffle(lower)
    blocks = [0]
    for start in range(0, len(lower), _BLOCKS_BETWEEN_DEFAULTS):
        blocks += [*lower[start : start + _BLOCKS_BETWEEN_DEFAULTS], 0]
    return Sweep(clocks_mhz=tuple(blocks), iterations_per_block=iterations_per_clock + 1)


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of a sweep is measured. `fewest`: clocks of the kind, on the rank, that has the fewest; 0 where one has
    none at default clocks."""

    complete: bool
    fewest: int


def coverage(ranks: Sequence[RankReport], sweep: Sweep) -> Coverage:
    """What the ranks have measured of a sweep, each kind that they run by itself."""
    wanted = set(sweep.clocks_mhz)
    counts = []
    for rank in ranks:
        run = {(stage_of(label), kind_of(label)) for label in executed(rank)}
        for work in run:
            clocks = {one.clock_mhz for one in rank.instructions if one.samples and (one.stage, one.kind) == work}
            counts.append(len(clocks & wanted) if 0 in clocks else 0)
        if not run:
            counts.append(0)
    return Coverage(complete=min(counts, default=0) == len(wanted), fewest=min(counts, default=0))


def noise_s(plan: JobPlanSpec, ranks: Sequence[RankReport]) -> float:
    """How far from the mean of an iteration at default clocks is no distance: half its 95% interval, from the sweep's
    blocks at default clocks, and the deviation of an iteration; 0 of fewer than four blocks."""
    assert plan.sweep is not None
    default = [
        block
        for index, block in complete_blocks(plan.hash, ranks).items()
        if index < len(plan.sweep.clocks_mhz) and plan.sweep.clocks_mhz[index] == 0
    ]
    if len(default) < LEAST_PAIRS:
        return 0.0
    mean = estimate([block.time_s for block in default])
    return (mean.ci95_high - mean.ci95_low) / 2 + fmean(block.deviation_s for block in default)


def is_over(plan: JobPlanSpec, ranks: Sequence[RankReport]) -> bool:
    """Whether the last block is so long past that what is not measured by now won't be."""
    if plan.activate_at is None or plan.sweep is None:
        return False
    blocks = len(plan.sweep.clocks_mhz) + _PATIENCE_BLOCKS
    end = plan.activate_at + blocks * plan.sweep.iterations_per_block
    return all(rank.iteration >= end for rank in ranks)
