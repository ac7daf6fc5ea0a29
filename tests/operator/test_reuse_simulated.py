"""What a profile of an earlier run is worth, on simulated jobs that the agent's own code measures."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from joulepath_bridge.pipeline import pipeline_of, profile_of
from joulepath_crds import EnergyProfileSpec, Reuse
from joulepath_operator.figures.agreement import agreement, check_clocks, merged
from joulepath_operator.figures.clocks import choose_clocks, make_sweep
from joulepath_operator.figures.order import executed
from joulepath_operator.figures.profile import build_profile
from joulepath_operator.figures.timing.delays import measure_delays
from joulepath_planner import Pipeline, Point, Profile, fit, frontier, one_f_one_b
from joulepath_rules import Applied, Arm
from simulated_job import SimulatedJob, sweep_block

TOP, LOWEST = 1410, 850
CLOCKS = tuple(range(TOP, LOWEST - 1, -20))
LENGTH = 4
MOST_ERROR = 0.01


def truth(time: float = 1.0, energy: float = 1.0, bent: float = 0.0) -> Pipeline:
    """Four uneven stages. bent: how much longer the lowest clock takes, all above 1200 MHz being as they were."""
    points = {}
    for stage, size in enumerate((1.0, 1.15, 0.9, 0.85)):
        for kind, seconds in (("F", 0.05), ("B", 0.1)):
            ones = []
            for clock in CLOCKS:
                slow = 1 + bent * max(0, 1200 - clock) / (1200 - LOWEST)
                time_s = seconds * size * (0.3 + 0.7 * TOP / clock) * time * slow
                watts = (120 + 260 * (clock / TOP) ** 2.5) * energy / time / slow
                ones.append(Point(clock, time_s, time_s * watts))
            points[stage, kind] = tuple(ones)
    return Pipeline(one_f_one_b(4, 8), Profile(points, 70.0))


def measured(
    pipeline: Pipeline, clocks: tuple[int, ...], *, replicas: int, seed: int
) -> tuple[EnergyProfileSpec, Pipeline]:
    """The profile of a job that has run these blocks, 0 being default clocks, and its pipeline. Noise is that of the
    benchmark: 1% of time, 2% of energy."""
    job = SimulatedJob(pipeline, replicas=replicas, seed=seed)
    job.run(6, lambda _: Applied(Arm.DEFAULT))
    for block, clock in enumerate(clocks):
        job.run(LENGTH, lambda _, block=block, clock=clock: sweep_block(str(block), block, clock, LENGTH))  # type: ignore[misc]
    job.run(5, lambda _: Applied(Arm.DEFAULT))
    gang = job.gang()
    topology = gang.topology()
    delays = measure_delays(gang, topology)
    spec = build_profile(gang, topology, {0, *clocks}, delays, "job")
    whole = pipeline_of(
        spec,
        [[one.label for one in executed(rank)] for rank in gang.pipeline()],
        profile=profile_of(spec),
        transfers_s=delays.transfers_s,
        overheads_s=delays.overheads_s,
        tails_s=delays.tails_s,
    )
    return spec, whole


@lru_cache
def earlier() -> tuple[EnergyProfileSpec, int]:
    """A profile that was measured at eight clocks, and the iterations of that."""
    blocks = make_sweep(choose_clocks(CLOCKS, TOP, 8), 3, "seed").clocks_mhz
    return measured(truth(), blocks, replicas=1, seed=1)[0], len(blocks) * LENGTH


def worst_error(found: EnergyProfileSpec, pipeline: Pipeline, true: Pipeline) -> float:
    """Of the frontier's energy, from T_min to T*_free, at the same slowdown."""
    fitted = replace(pipeline, profile=fit(profile_of(found), CLOCKS).likely)
    seen, known = (frontier(one, 33) for one in (fitted, true))
    slowdowns = np.linspace(1, known.t_star_free_s / known.t_min_s, 7)
    energies = [[one.at(float(by) * one.t_min_s).energy_j for by in slowdowns] for one in (seen, known)]
    return max(abs(float(ours / theirs) - 1) for ours, theirs in zip(*energies, strict=True))


@pytest.mark.parametrize(
    ("true", "expected"),
    [(truth(), Reuse.REUSED), (truth(1.03, 1.06), Reuse.REFRESHED), (truth(0.8, 0.7), Reuse.REFRESHED)],
    ids=["the same", "3% slower, 6% dearer", "smaller batches"],
)
def test_a_check_of_sixteen_iterations_gives_the_frontier_to_a_percent(true: Pipeline, expected: Reuse) -> None:
    old, iterations = earlier()
    high, low = check_clocks(old, CLOCKS, LOWEST)
    blocks = (0, high, low, 0)
    now, pipeline = measured(true, blocks, replicas=2, seed=2)
    found = agreement(old, now)
    assert found.reuse is expected
    assert len(blocks) * LENGTH == 16 < iterations == 60
    assert worst_error(merged(old, now, found, LOWEST), pipeline, true) < MOST_ERROR
    if expected is not Reuse.REUSED:
        as_it_was = old.model_copy(update={"topology": now.topology})
        assert worst_error(as_it_was, pipeline, true) > MOST_ERROR, "without the check it would have been wrong"


def test_a_job_whose_low_clocks_are_slower_than_they_were_is_not_taken_for_the_same() -> None:
    old, _ = earlier()
    high, low = check_clocks(old, CLOCKS, LOWEST)
    now, _ = measured(truth(bent=0.08), (0, high, low, 0), replicas=2, seed=3)
    assert agreement(old, now).reuse is Reuse.REFUSED
