"""How often the 95% intervals of savings and slowdown hold the truth, in simulated runs of noise that hangs together.

Iterations vary by AR(1) noise within blocks and by a slower one across them, the job itself drifts, and neighbours have
bursts; all of it is drawn with fixed seeds. The truth is what the plan saves and costs.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest

from joulepath_crds import Arm, BlockReport, Coordinates, Estimate, MeasuredSavings, RankReport
from joulepath_operator.figures.savings import is_enough, measured_savings

RUNS = 200
LEAST_COVERAGE = 0.93
SAVED, SLOWDOWN = 0.15, 0.002
LENGTH = 6


@dataclass(frozen=True)
class Job:
    """What its iterations vary by."""

    fast: float
    """Deviation of an iteration; the next one has 0.8 of it."""
    slow: float = 0.0
    """Of noise of which the next iteration has 0.99."""
    drift: float = 0.0
    """How much longer the last iteration is than the first."""
    bursts: float = 0.0
    """Chance of each iteration to begin one: ten of them take 30% longer."""


def autoregressive(chance: random.Random, count: int, deviation: float, memory: float) -> list[float]:
    value, values, fresh = chance.gauss(0, deviation), [], deviation * math.sqrt(1 - memory**2)
    for _ in range(count):
        value = memory * value + chance.gauss(0, fresh)
        values.append(value)
    return values


def blocks(job: Job, pairs: int, seed: int) -> list[BlockReport]:
    """Of one rank, in an order drawn for each pair."""
    chance, count = random.Random(seed), 2 * LENGTH * pairs
    noise = [
        (1 + fast + slow) * (1 + job.drift * at / count)
        for at, (fast, slow) in enumerate(
            zip(
                autoregressive(chance, count, job.fast, 0.8), autoregressive(chance, count, job.slow, 0.99), strict=True
            )
        )
    ]
    watts = [1 + one for one in autoregressive(chance, count, job.fast / 2, 0.8)]
    for begin in range(count):
        if chance.random() < job.bursts:
            for at in range(begin, min(begin + 10, count)):
                noise[at] *= 1.3
    found = []
    for pair in range(pairs):
        for place, arm in enumerate(chance.sample((Arm.PLAN, Arm.CONTROL), 2)):
            begin = LENGTH * (2 * pair + place)
            counted = range(begin + 1, begin + LENGTH - 1)
            time_s = sum(noise[at] for at in counted) / len(counted)
            energy_j = sum(300 * noise[at] * watts[at] for at in counted) / len(counted)
            slower, saved = (1 + SLOWDOWN, 1 - SAVED) if arm is Arm.PLAN else (1.0, 1.0)
            found.append(
                BlockReport(
                    hash="h",
                    block=2 * pair + place,
                    arm=arm,
                    iterations=len(counted),
                    iteration_time_s=time_s * slower,
                    energy_per_iteration_j=energy_j * saved,
                )
            )
    return found


def measured(reports: list[BlockReport]) -> MeasuredSavings | None:
    return measured_savings(
        "h",
        [
            RankReport(
                rank=0,
                pod="p",
                pod_uid="u",
                gpu_uuid="g",
                coordinates=Coordinates(pipeline=0),
                stages=(0,),
                stage_count=1,
                schedule="1F1B",
                microbatches=4,
                blocks=tuple(reports),
            )
        ],
    )


def holds(interval: Estimate, truth: float) -> bool:
    return interval.ci95_low <= truth <= interval.ci95_high


def covered(found: list[MeasuredSavings | None]) -> tuple[float, float]:
    """Shares of the runs whose intervals hold the truth: of savings, of slowdown."""
    known = [one for one in found if one is not None]
    assert len(known) == RUNS
    shares = [(holds(one.savings, SAVED), holds(one.slowdown, SLOWDOWN)) for one in known]
    return sum(saved for saved, _ in shares) / RUNS, sum(slow for _, slow in shares) / RUNS


@pytest.mark.parametrize(
    ("job", "pairs"),
    [
        pytest.param(Job(fast=0.005), 8, id="quiet"),
        pytest.param(Job(fast=0.01, slow=0.01, drift=0.05), 8, id="drifting"),
        pytest.param(
            Job(fast=0.005, slow=0.005, drift=0.12), 32, marks=pytest.mark.slow, id="a tenth slower in the end"
        ),
        pytest.param(Job(fast=0.005, slow=0.003, drift=0.02, bursts=0.003), 16, id="bursts"),
    ],
)
def test_the_intervals_hold_the_truth_as_often_as_they_say(job: Job, pairs: int) -> None:
    assert min(covered([measured(blocks(job, pairs, seed)) for seed in range(RUNS)])) >= LEAST_COVERAGE


@pytest.mark.slow
def test_to_stop_once_enough_is_known_does_not_spoil_them() -> None:
    job = Job(fast=0.006, slow=0.005, drift=0.02)

    def stopped(seed: int) -> MeasuredSavings | None:
        reports = blocks(job, 16, seed)
        looks = (measured(reports[: 2 * pairs]) for pairs in range(8, 17, 2))
        return next((one for one in looks if one is not None and is_enough(one)), measured(reports))

    assert min(covered([stopped(seed) for seed in range(RUNS)])) >= LEAST_COVERAGE
