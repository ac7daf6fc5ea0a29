"""A plan for T is a plan for every longer T, and the same whoever asks for it."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_planner import Granularity, Pipeline, Point, Profile, frontier_plans, one_f_one_b, plan, simulate
from joulepath_planner.rungs import RUNGS, taken
from tests.examples import examples
from tests.planner.pipelines import gpt3, pipelines, scaled

SAME = 1 + 1e-7


def _ladder(seed: int) -> tuple[Callable[[int], float], Callable[[int, int], float]]:
    """A convex bound, and drafts that cost up to 3% more."""

    def least(rung: int) -> float:
        return 100.0 + 20.0 * (1 - rung / RUNGS) ** 2

    def cost(rung: int) -> float:
        return least(rung) * (1 + 0.03 * random.Random(seed * RUNGS + rung).random())

    return cost, lambda rung, _: least(rung)


@examples(30)
@given(st.lists(st.integers(0, RUNGS), min_size=2, max_size=20), st.integers(0, 2**32))
def test_whatever_drafts_cost_what_is_taken_never_costs_more_for_a_later_rung(wanted: list[int], seed: int) -> None:
    cost, bound = _ladder(seed)
    found = [taken(rung, cost, bound) for rung in sorted(wanted)]
    costs = [cost(rung) for rung in found]
    assert costs == sorted(costs, reverse=True)
    assert all(one <= rung for one, rung in zip(found, sorted(wanted), strict=True))


@examples(30)
@given(st.integers(0, RUNGS), st.integers(0, 2**32))
def test_what_is_taken_costs_little_more_than_the_cheapest_draft_so_far(wanted: int, seed: int) -> None:
    cost, bound = _ladder(seed)
    assert cost(taken(wanted, cost, bound)) <= bound(wanted, wanted) * 1.03 + 0.7


@examples(10)
@given(
    pipeline=pipelines().filter(lambda one: isinstance(one.profile.blocking_power_w, float)),
    slowdowns=st.lists(st.floats(0, 0.4), min_size=2, max_size=5),
    granularity=st.sampled_from(["instruction", "kind", "rank"]),
)
def test_more_slowdown_never_costs_more(pipeline: Pipeline, slowdowns: list[float], granularity: Granularity) -> None:
    energies = [plan(pipeline, slowdown=one, granularity=granularity).energy_j for one in sorted(slowdowns)]
    assert all(later <= sooner * SAME for sooner, later in pairwise(energies))


@pytest.mark.slow
def test_a_tenth_of_a_percent_more_never_costs_more() -> None:
    energies = [plan(gpt3(), slowdown=0.02 + 0.001 * step).energy_j for step in range(3)]
    assert all(later <= sooner * SAME for sooner, later in pairwise(energies))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pipeline", "points"), [(gpt3(), 3), (scaled([1.0, 1.2, 0.9], 4), 9)], ids=["published", "made up"]
)
def test_a_plan_of_a_frontier_is_the_plan_for_its_time(pipeline: Pipeline, points: int) -> None:
    for made in frontier_plans(pipeline, points)[1]:
        alone = plan(pipeline, deadline_s=made.deadline_s, fixed=True)
        assert alone.clocks == made.clocks
        assert alone.energy_j == made.energy_j


@pytest.mark.parametrize(("microbatches", "cheapest_j"), [(1, 56.0), (3, 163.5)])
def test_a_plan_between_two_rungs_has_the_clocks_that_just_fit(microbatches: int, cheapest_j: float) -> None:
    """Two clocks, of which the lower one just keeps the deadline in the forwards or the backwards."""
    points = {
        (0, "F"): (Point(1400, 0.05, 20.0), Point(1000, 0.064, 16.0)),
        (0, "B"): (Point(1400, 0.10, 40.0), Point(1000, 0.127, 31.75)),
    }
    pipeline = Pipeline(one_f_one_b(1, microbatches), Profile(points, 60.0))
    made = plan(pipeline, slowdown=0.12)
    assert made.energy_j == pytest.approx(cheapest_j)
    assert plan(pipeline, deadline_s=made.iteration_time_s).energy_j == pytest.approx(cheapest_j)


@pytest.mark.parametrize("factor", [1.0005, 1.05, 3.0])
def test_a_time_that_is_fixed_is_waited_for_between_rungs_and_beyond_the_last(factor: float) -> None:
    pipeline = scaled([1.0, 1.2], 3)
    deadline_s = factor * plan(pipeline).t_min_s
    made = plan(pipeline, deadline_s=deadline_s, fixed=True)
    waited = simulate(pipeline, made.clocks, pace_s=deadline_s)
    assert made.iteration_time_s == pytest.approx(deadline_s)
    assert made.energy_j == pytest.approx(waited.energy_j)
