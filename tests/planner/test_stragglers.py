"""Replicas of differing speed: who may take how long, and what the whole job saves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_planner import ObjectiveError, Pipeline, Replica, frontier, plan, share_out
from tests.examples import examples
from tests.planner.pipelines import pipelines, scaled

SOLVER = 1e-6
PIPELINE = scaled([1.0, 1.3, 0.8], 4)
KNOWN = frontier(PIPELINE)


def test_the_slowest_sets_the_time_and_the_others_use_it() -> None:
    job = share_out([Replica(KNOWN), Replica(KNOWN, 1.2), Replica(KNOWN, 3.0)])
    assert job.iteration_time_s == pytest.approx(3 * KNOWN.t_min_s)
    assert [share.t_opt_s for share in job.shares] == pytest.approx(
        [KNOWN.t_star_fixed_s, min(1.2 * KNOWN.t_star_fixed_s, 3 * KNOWN.t_min_s), 3 * KNOWN.t_min_s]
    )
    assert job.energy_j == pytest.approx(sum(share.energy_j for share in job.shares))
    assert job.baseline_energy_j == pytest.approx(sum(share.baseline_energy_j for share in job.shares))


@examples(40)
@given(st.lists(st.floats(0.5, 3), min_size=1, max_size=5), st.floats(0, 0.5))
def test_stretching_to_the_straggler_saves_and_no_slowdown_is_exceeded(factors: list[float], slowdown: float) -> None:
    replicas = [Replica(KNOWN, factor) for factor in factors]
    job, strict = share_out(replicas, slowdown), share_out(replicas)
    assert strict.energy_j <= strict.intrinsic_energy_j * (1 + SOLVER)
    assert strict.intrinsic_energy_j <= strict.baseline_energy_j * (1 + SOLVER)
    assert job.energy_j <= strict.energy_j * (1 + SOLVER)
    assert job.iteration_time_s <= (1 + slowdown) * max(factors) * KNOWN.t_min_s * (1 + SOLVER)
    assert all(share.t_min_s <= share.t_opt_s * (1 + SOLVER) for share in job.shares)


def test_one_replica_alone_is_the_frontier_at_t_min() -> None:
    job = share_out([Replica(KNOWN)])
    assert job.energy_j == pytest.approx(KNOWN.points[0].energy_j)
    assert job.savings == pytest.approx(1 - KNOWN.points[0].energy_j / KNOWN.baseline_energy_j)


@examples(12)
@given(pipelines(), st.floats(1.0, 3.0))
def test_a_share_is_the_bound_of_a_plan_whose_time_is_fixed(pipeline: Pipeline, factor: float) -> None:
    known = frontier(pipeline, 5)
    straggler_s = factor * known.t_min_s
    made = plan(pipeline, deadline_s=straggler_s, fixed=True)
    share = share_out([Replica(known), Replica(known, factor)]).shares[0]
    assert share.energy_j == pytest.approx(known.at(straggler_s).energy_j)
    assert made.energy_j >= share.energy_j * (1 - SOLVER)
    assert made.lower_bound_j >= share.energy_j * (1 - SOLVER)


def test_a_job_without_replicas_or_with_odd_ones_is_refused() -> None:
    with pytest.raises(ObjectiveError, match="at least one replica"):
        share_out([])
    with pytest.raises(ObjectiveError, match="slowdown is -1"):
        share_out([Replica(KNOWN)], -1)
    with pytest.raises(ObjectiveError, match="factor is 0"):
        Replica(KNOWN, 0.0)


def test_default_clocks_wait_at_what_they_draw() -> None:
    pipeline = scaled([1.0, 1.3, 0.8, 0.9], 4)
    pipeline = replace(pipeline, profile=replace(pipeline.profile, blocking_power_w={1400: 90.0, 1000: 50.0}))
    known = frontier(pipeline)
    job = share_out([Replica(known), Replica(known, factor=1.2)])
    held = plan(pipeline, deadline_s=1.2 * known.t_min_s, fixed=True)
    assert job.shares[0].baseline_energy_j == pytest.approx(held.baseline_energy_j)
