"""What jitter does to plans, and what a reserve against it costs: seeded, hence exact."""

from __future__ import annotations

import dataclasses

import pytest

from joulepath_planner import (
    LagTable,
    Noise,
    Pipeline,
    Profile,
    ProfileError,
    plan,
    robust_plan,
    robustness,
    simulate,
)
from tests.planner.pipelines import gpt3, scaled

PIPELINE = gpt3(4)
PLAN = plan(PIPELINE)


def _with_errors(pipeline: Pipeline, relative: float) -> Pipeline:
    points = {
        key: tuple(dataclasses.replace(point, time_se_s=relative * point.time_s) for point in series)
        for key, series in pipeline.profile.points.items()
    }
    return dataclasses.replace(pipeline, profile=Profile(points, pipeline.profile.blocking_power_w))


def test_the_same_seed_gives_the_same_figures_and_another_seed_others() -> None:
    first, again, other = (robustness(PIPELINE, PLAN.clocks, Noise(0.01), samples=20, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_jitter_makes_iterations_longer_and_quantiles_ascend() -> None:
    found = robustness(PIPELINE, PLAN.clocks, Noise(0.02), samples=100)
    assert found.plan.p50_s <= found.plan.p95_s <= found.plan.p99_s
    assert found.plan.mean_s > PLAN.t_min_s
    assert found.plan.mean_s > found.default.mean_s
    assert found.slowdown_at(0.95) > found.slowdown_at(0.5) > 0
    assert found.share_over(found.slowdown_at(0.9)) == pytest.approx(0.1, abs=0.011)
    assert found.energy_j < found.default_energy_j


def test_little_noise_changes_little_and_default_clocks_are_never_slower_than_themselves() -> None:
    calm = robustness(PIPELINE, PLAN.clocks, Noise(1e-9), samples=5)
    assert calm.plan.mean_s == pytest.approx(simulate(PIPELINE, PLAN.clocks).iteration_time_s, rel=1e-6)
    nothing = [[None] * len(row) for row in PLAN.clocks]
    assert set(robustness(PIPELINE, nothing, Noise(0.05), samples=5).slowdowns) == {0.0}


def test_standard_errors_of_the_profile_are_noise_too_unless_they_are_left_out() -> None:
    uncertain = _with_errors(PIPELINE, 0.02)
    found = robustness(uncertain, PLAN.clocks, Noise(), samples=30)
    assert found.plan.p99_s > found.plan.p50_s
    left_out = robustness(uncertain, PLAN.clocks, Noise(0.01, errors=False), samples=30)
    assert left_out == robustness(PIPELINE, PLAN.clocks, Noise(0.01), samples=30)


@pytest.mark.slow
def test_a_robust_plan_keeps_its_bound_and_says_what_that_costs() -> None:
    noise, tries = Noise(0.02), []
    kept = robust_plan(PIPELINE, noise, margin=0.002, samples=30, progress=lambda: tries.append(1))
    assert kept.careless_robustness.slowdown_at(0.95) > kept.bound
    assert kept.robustness.slowdown_at(0.95) <= kept.bound == pytest.approx(0.002)
    assert kept.reserve > 0
    assert 0 < kept.cost_j < kept.plan.baseline_energy_j - kept.careless.energy_j
    assert len(tries) >= 2


def test_a_straggler_that_both_wait_for_hides_most_jitter() -> None:
    pace_s = 1.2 * PLAN.t_min_s
    beside = plan(PIPELINE, deadline_s=pace_s, fixed=True)
    found = robustness(PIPELINE, PLAN.clocks, Noise(0.01), pace_s=pace_s, samples=20)
    assert found.plan.p50_s == pytest.approx(pace_s, rel=0.005)
    assert robustness(PIPELINE, beside.clocks, Noise(0.01), pace_s=pace_s, samples=20).energy_j < found.energy_j


def test_where_the_bound_holds_anyway_nothing_is_reserved() -> None:
    pipeline, lags = scaled([1.0, 1.3], 3), LagTable.constant(0.001)
    kept = robust_plan(
        pipeline,
        Noise(0.001),
        lambda reserve: plan(pipeline, slowdown=0.1, lags=lags, reserve=reserve),
        samples=20,
        lags=lags,
    )
    assert (kept.reserve, kept.cost_j) == (0.0, 0.0)
    assert kept.bound == pytest.approx(0.105)


@pytest.mark.slow
def test_a_bound_that_no_slowing_keeps_leaves_default_clocks() -> None:
    kept = robust_plan(PIPELINE, Noise(0.5), margin=0.0, quantile=0.99, samples=8)
    assert set(kept.robustness.slowdowns) == {0.0}
    assert (kept.reserve, kept.plan.granularity) == (1.0, "default")
    assert kept.plan.energy_j == pytest.approx(kept.careless.baseline_energy_j)
    assert kept.plan.energy_j >= kept.careless.energy_j


def test_noise_that_is_none_or_too_much_is_refused_with_the_remedy() -> None:
    with pytest.raises(ProfileError, match="no standard errors, and no jitter is given; give one"):
        robustness(PIPELINE, PLAN.clocks, Noise())
    with pytest.raises(ValueError, match="jitter is 1; it is a fraction"):
        Noise(1.0)
    with pytest.raises(ValueError, match="samples is 1"):
        robustness(PIPELINE, PLAN.clocks, Noise(0.01), samples=1)
    with pytest.raises(ValueError, match="quantile is 1; it is the share"):
        robust_plan(PIPELINE, Noise(0.01), quantile=1.0)
