from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from joulepath_planner import (
    ArgumentError,
    Pipeline,
    Plan,
    Point,
    Profile,
    certainty,
    fit,
    one_f_one_b,
    plan,
    schedule_by_name,
    simulate,
    sure_plan,
)
from tests.planner.pipelines import CLOCKS as FEW_CLOCKS
from tests.planner.pipelines import profiled
from tests.planner.test_fit import CLOCKS, SIX, TOP, generated, thinned

SCHEDULE = one_f_one_b(4, 4)


def made(on: Pipeline, reserve: float) -> Plan:
    return plan(on, granularity="instruction", reserve=reserve)


def unlucky(_stage: int, _kind: str, clock: int) -> float:
    """One clock seemed faster than it is, in every stage."""
    return 0.95 if clock == 1320 else 1.0


def test_default_clocks_are_sure_to_be_as_slow_as_themselves() -> None:
    found = fit(thinned(generated(noise=0.02), SIX), CLOCKS)
    pipeline = Pipeline(SCHEDULE, found.profile)
    sure = certainty(pipeline, [[None] * len(order) for order in SCHEDULE.orders], found)
    assert (sure.slowdown, sure.slowdown_se, sure.slowdown_at_most, sure.savings, sure.savings_se) == (0, 0, 0, 0, 0)


def test_what_has_no_noise_is_sure() -> None:
    found = fit(generated(), CLOCKS)
    pipeline = Pipeline(SCHEDULE, found.profile)
    planned = plan(pipeline, slowdown=0.05)
    sure = certainty(pipeline, planned.clocks, found)
    assert sure.slowdown == pytest.approx(planned.slowdown, abs=0.001)
    assert sure.savings == pytest.approx(planned.predicted_savings, abs=0.005)
    assert sure.slowdown_at_most < sure.slowdown + 0.005


@pytest.mark.parametrize("name", ["gpipe", "interleaved-1f1b", "zb-h1"])
def test_iterations_take_what_the_referee_says(name: str) -> None:
    schedule = schedule_by_name(name, 4, 4)
    found = fit(profiled(schedule), FEW_CLOCKS)
    pipeline = Pipeline(schedule, found.likely, tail_s={0: 0.01}, gpus={} if name != "gpipe" else {0: 2})
    planned = plan(pipeline, slowdown=0.03)
    sure = certainty(pipeline, planned.clocks, found)
    default = simulate(pipeline)
    seen = simulate(pipeline, planned.clocks)
    assert sure.slowdown == pytest.approx(seen.iteration_time_s / default.iteration_time_s - 1, abs=0.01)
    assert sure.savings == pytest.approx(1 - seen.energy_j / default.energy_j, abs=0.02)


def test_a_plan_that_counts_on_luck_is_said_to_be_late_and_a_sure_one_does_not() -> None:
    truth = Pipeline(SCHEDULE, generated(cap=TOP))
    found = fit(generated(cap=TOP, slow=unlucky), CLOCKS)
    pipeline = Pipeline(SCHEDULE, found.profile)

    def late(planned: Plan) -> float:
        return simulate(truth, planned.clocks).iteration_time_s / simulate(truth).iteration_time_s - 1

    hasty = made(pipeline, 0.0)
    stated = certainty(pipeline, hasty.clocks, found)
    assert late(hasty) > 0.02
    assert late(hasty) == pytest.approx(stated.slowdown, abs=0.01)
    sure = sure_plan(pipeline, found, made, margin=0.005)
    assert late(sure.plan) <= 0.005
    assert sure.plan.slowdown == pytest.approx(late(sure.plan), abs=0.005)
    assert sure.plan.predicted_savings > 0.02


def test_a_plan_that_stands_its_doubts_has_no_more_reserve_than_asked() -> None:
    found = fit(generated(), CLOCKS)
    sure = sure_plan(Pipeline(SCHEDULE, found.profile), found, made, margin=0.005, reserve=0.001)
    assert sure.reserve == 0.001
    assert sure.plan.clocks == made(Pipeline(SCHEDULE, found.likely), 0.001).clocks


@pytest.mark.slow
def test_what_a_sure_plan_of_even_stages_promises_has_no_luck_in_it() -> None:
    """Joules are noisy and seconds exact: a plan on the cheapest points isn't late, and promises what isn't there."""
    draw = np.random.default_rng(5)
    truth = Pipeline(SCHEDULE, generated(dict.fromkeys(range(4), 1.0), cap=TOP))
    noisy = {
        key: tuple(Point(one.clock_mhz, one.time_s, one.energy_j * draw.normal(1, 0.03)) for one in points)
        for key, points in truth.profile.points.items()
    }
    found = fit(Profile(noisy, 80.0), CLOCKS)
    pipeline = Pipeline(SCHEDULE, found.profile)

    def promised(planned: Plan) -> float:
        return planned.predicted_savings - 1 + simulate(truth, planned.clocks).energy_j / simulate(truth).energy_j

    def later(on: Pipeline, reserve: float) -> Plan:
        return plan(on, slowdown=0.05, granularity="instruction", reserve=reserve)

    hasty = later(pipeline, 0.0)
    assert certainty(pipeline, hasty.clocks, found).slowdown < 0.055
    assert promised(hasty) > 0.02
    assert abs(promised(sure_plan(pipeline, found, later, margin=0.005).plan)) < 0.005


@pytest.mark.slow
def test_what_a_reserve_hides_of_small_errors_is_stated_for_large_ones() -> None:
    found = fit(thinned(generated(noise=0.01), SIX), CLOCKS)
    pipeline = Pipeline(SCHEDULE, found.likely)
    sure = certainty(pipeline, made(pipeline, 0.02).clocks, found)
    assert sure.slowdown + 4 * sure.slowdown_se < 0.0001
    assert sure.slowdown_at_most > 0.002


@pytest.mark.slow
def test_few_and_noisy_clocks_get_a_reserve() -> None:
    found = fit(thinned(generated(noise=0.03), (TOP, 1200, 975)), CLOCKS)
    pipeline = Pipeline(SCHEDULE, found.profile)
    sure = sure_plan(pipeline, found, made, margin=0.0)
    assert sure.reserve > 0
    careless = certainty(pipeline, made(pipeline, 0.0).clocks, found)
    assert sure.certainty.slowdown_at_most < careless.slowdown_at_most


def test_what_is_fixed_has_no_doubt() -> None:
    profile = generated({0: 1.0, 1: 0.8})
    points = {**profile.points, (0, "X"): (Point(TOP, 0.02, 4.0),)}
    schedule = schedule_by_name("1f1b", 2, 3)
    found = fit(Profile(points, 80.0), CLOCKS)
    pipeline = Pipeline(schedule, found.profile)
    assert (0, "X") not in found.draws
    assert certainty(pipeline, plan(pipeline).clocks, found).savings > 0


@pytest.mark.slow
def test_savings_are_those_of_the_referee_where_waits_cost_by_the_clock() -> None:
    measured = replace(generated(), blocking_power_w={TOP: 90.0, 975: 75.0})
    found = fit(measured, CLOCKS)
    pipeline = Pipeline(SCHEDULE, found.likely)
    planned = plan(pipeline, slowdown=0.05)
    assert certainty(pipeline, planned.clocks, found).savings == pytest.approx(planned.predicted_savings, abs=0.01)


@pytest.mark.slow
def test_a_plan_that_no_reserve_makes_sure_is_made_all_the_same() -> None:
    doubtful = {
        key: tuple(Point(p.clock_mhz, p.time_s, p.energy_j, 5 * p.time_s, p.energy_j) for p in points)
        for key, points in thinned(generated(), SIX).points.items()
    }
    found = fit(Profile(doubtful, 80.0), CLOCKS)
    sure = sure_plan(Pipeline(SCHEDULE, found.profile), found, made, margin=0.005)
    assert sure.reserve <= 0.5
    assert sure.excess == pytest.approx(
        sure.certainty.slowdown + sure.certainty.slowdown_se - (1.005 * sure.plan.deadline_s / sure.plan.t_min_s - 1)
    )


def test_clocks_that_the_fit_or_the_schedule_has_not_are_refused_in_a_sentence() -> None:
    found = fit(thinned(generated(), SIX), SIX)
    pipeline = Pipeline(SCHEDULE, found.likely)
    orders = SCHEDULE.orders
    with pytest.raises(ArgumentError, match="has a clock of 1395 MHz, which the fit hasn't"):
        certainty(pipeline, [[1395] * len(order) for order in orders], found)
    with pytest.raises(ArgumentError, match="clocks are of another schedule"):
        certainty(pipeline, [[None] * len(order) for order in orders[:-1]], found)
    with pytest.raises(ArgumentError, match="margin is 'a'; it must be a number"):
        sure_plan(pipeline, found, made, margin=cast(Any, "a"))
