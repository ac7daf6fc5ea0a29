"""Measured savings: plan blocks against the control blocks beside them.

Savings and slowdown are taken pair by pair, since what drifts slowly, temperature above all, is the same within a pair;
blocks of whose iterations other sorts count, as in a loop that evaluates now and then, are no pair;
the 95% interval is Student's t over the pairs, a tenth wider. Of fewer than four pairs no number is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, median, stdev
from typing import Final

from joulepath_crds import MOST_BLOCKS, Arm, ArmSummary, Estimate, MeasuredSavings, RankReport
from joulepath_operator.figures.joining import Join, JoinedBlock, complete_blocks

__all__ = [
    "LEAST_PAIRS",
    "NOT_YET_KNOWN",
    "WIDER",
    "estimate",
    "figure",
    "in_words",
    "is_enough",
    "measured_savings",
    "outlives",
    "t_quantile",
]

LEAST_PAIRS: Final = 4
_SPELL: Final = 1.05
"""A pair with a block longer than this many usual ones of its arm isn't counted, whichever arm it is: the guard cuts
plan blocks short in a slow spell of the job's own, and to drop only those would flatter the plan."""
_NEAR: Final = 4
"""What is usual the pairs beside it tell, so many on each side: a job may become slower by itself, by and by."""
WIDER: Final = 1.1
"""Bursts of neighbours and drift have pairs differ otherwise than normal ones: by itself Student's t holds the truth in
94 of 100 simulated runs of them, and so wide in 95 to 96 (1,000 runs of each of four kinds of noise)."""
_ENOUGH_PAIRS: Final = 8
_ENOUGH: Final = 0.005, 0.01
"""Half the widths of the intervals of slowdown and savings with which enough is known."""
NOT_YET_KNOWN: Final = "not yet known"


def measured_savings(
    plan_hash: str, ranks: Sequence[RankReport], newest: int = MOST_BLOCKS // 2, join: Join = complete_blocks
) -> MeasuredSavings | None:
    """Savings of a plan from the newest pairs that all ranks have whole; None until there are four.

    Ranks keep their last 256 blocks, so that the figure follows what drifts over days.
    """
    blocks = join(plan_hash, ranks)
    pairs: list[tuple[JoinedBlock, JoinedBlock]] = []
    for index in sorted(blocks):
        if index % 2 == 0 and index + 1 in blocks:
            first, second = blocks[index], blocks[index + 1]
            two = {first.arm: first, second.arm: second}
            if two.keys() == {Arm.PLAN, Arm.CONTROL} and first.sorts == second.sorts:
                pairs.append((two[Arm.PLAN], two[Arm.CONTROL]))
    pairs = [pair for at, pair in enumerate(pairs) if _is_usual(pair, pairs[max(0, at - _NEAR) : at + _NEAR + 1])]
    pairs = pairs[-newest:]
    if len(pairs) < LEAST_PAIRS:
        return None
    return MeasuredSavings(
        pairs=len(pairs),
        control=_arm([control for _, control in pairs]),
        plan=_arm([plan for plan, _ in pairs]),
        savings=estimate([1 - plan.energy_j / control.energy_j for plan, control in pairs]),
        slowdown=estimate([plan.time_s / control.time_s - 1 for plan, control in pairs]),
    )


def is_enough(measured: MeasuredSavings) -> bool:
    """Whether slowdown and savings are known to half a percent and a point.

    Of fewer than eight pairs an interval is often narrow by luck, and to stop then would be to believe it.
    """
    widths = (one.ci95_high - one.ci95_low for one in (measured.slowdown, measured.savings))
    known = all(width <= 2 * half for width, half in zip(widths, _ENOUGH, strict=True))
    return measured.pairs >= _ENOUGH_PAIRS and known


def outlives(old: MeasuredSavings, new: MeasuredSavings | None) -> bool:
    """Whether an older figure is still the better one: an agent that was started anew has lost its blocks."""
    return new is None or new.pairs < min(old.pairs, _ENOUGH_PAIRS)


def in_words(measured: MeasuredSavings | None) -> str:
    """15.2% ± 0.4, in points of percent; or that it is not yet known."""
    if measured is None:
        return NOT_YET_KNOWN
    savings = measured.savings
    return f"{savings.mean * 100:.1f}% ± {(savings.ci95_high - savings.ci95_low) * 50:.1f}"


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95% interval of at least two values."""
    mean = fmean(values)
    half = WIDER * t_quantile(len(values) - 1) * stdev(values) / sqrt(len(values))
    return Estimate(mean=figure(mean), ci95_low=figure(mean - half), ci95_high=figure(mean + half))


def figure(value: float) -> float:
    """Five digits: more are not known, and kubectl shows them all."""
    return float(f"{value:.5g}")


def t_quantile(degrees: int) -> float:
    """The 0.975 quantile of Student's t: Fisher's expansion in 1/degrees, within 0.2% from 3 degrees on."""
    z, n = 1.959963984540054, float(degrees)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / n**power for power, term in enumerate(terms))


def _is_usual(pair: tuple[JoinedBlock, JoinedBlock], near: Sequence[tuple[JoinedBlock, JoinedBlock]]) -> bool:
    return all(pair[arm].time_s <= _SPELL * median(one[arm].time_s for one in near) for arm in (0, 1))


def _arm(blocks: Sequence[JoinedBlock]) -> ArmSummary:
    return ArmSummary(
        iterations=sum(block.iterations for block in blocks),
        iteration_time_s=estimate([block.time_s for block in blocks]),
        energy_per_iteration_j=estimate([block.energy_j for block in blocks]),
    )
