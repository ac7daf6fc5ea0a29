"""The guard in simulated jobs: it stops a plan that is slow, and none for what a neighbour does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from joulepath_clocks.ranks.guard import Word
from joulepath_rules import Arm
from tests.clocks.ranks.simulated import Noise, burst, bursts, plan, simulate, slow_plan


def test_noise_alone_never_trips_it() -> None:
    story = simulate(plan(pairs=8), 20_000, lambda *_: 1.0, noise=Noise(0.02))
    assert story.trips == []


@pytest.mark.parametrize("slowdown", [1.08, 1.3])
def test_a_slow_plan_is_refused_after_fifteen_of_its_iterations(slowdown: float) -> None:
    """At a fixed cost, whether control blocks are run or not: 3 times 5 iterations, the rest at default clocks."""
    for pairs in (0, 8):
        for seed in range(20):
            story = simulate(plan(pairs), 200, lambda _, arm: slowdown if arm is Arm.PLAN else 1.0, seed)
            assert story.refused_at is not None
            assert story.refused_at <= 110
            assert story.arms.count(Arm.PLAN) <= 18


def test_a_spell_that_the_control_blocks_see_too_does_not_trip_it() -> None:
    spec = plan(pairs=100)
    for seed in range(20):
        story = simulate(spec, 400, burst(100, 10_000), seed)
        # A plan block that the spell begins in is asked about once; from then on the control blocks answer.
        assert len(story.trips) <= 1
        assert story.refused_at is None
        assert Arm.PLAN in story.arms[-40:]


def test_a_burst_that_fades_while_it_is_asked_leaves_the_plan_in_force() -> None:
    for last in range(104, 125):
        story = simulate(plan(pairs=0), 400, burst(100, last))
        assert story.refused_at is None
        assert len(story.trips) == 1
        assert story.arms[-1] is Arm.PLAN


def test_after_a_slow_spell_is_over_its_measure_is_the_promise_again() -> None:
    def slow(number: int, arm: Arm) -> float:
        return 1.3 if 50 <= number < 300 else 1.2 if arm is Arm.PLAN and number >= 500 else 1.0

    story = simulate(plan(pairs=0), 700, slow)
    assert story.refused_at is not None
    assert story.refused_at > 500


def test_false_alarms_are_rare_among_bursts() -> None:
    refused = [simulate(plan(pairs=8), 4_000, bursts(seed, gap=100, length=10), seed).refused_at for seed in range(12)]
    assert refused == [None] * 12


@pytest.mark.parametrize("pairs", [0, 8])
def test_a_plan_that_promises_ten_seconds_for_one_is_held_to_what_was_measured_here(pairs: int) -> None:
    spec = plan(pairs, control_iteration_time_s=10.0, plan_iteration_time_s=10.0)
    story = simulate(spec, 200, slow_plan(0.08), control_time_s=1.0)
    assert story.refused_at is not None
    assert story.refused_at <= 110


def test_a_plan_with_invented_times_and_an_invented_word_is_held_to_the_agents_own_limit() -> None:
    spec = plan(8, plan_iteration_time_s=1.5, allowed_slowdown=0.5)
    assert simulate(spec, 200, slow_plan(0.3)).refused_at is None
    assert simulate(spec, 200, slow_plan(0.3), most_slowdown=0.05).refused_at is not None
    older = replace(spec, allowed_slowdown=None)
    assert simulate(older, 200, slow_plan(0.3), most_slowdown=0.05).refused_at is not None


def test_a_plan_of_an_older_operator_is_held_to_what_it_tells_of_itself() -> None:
    assert Word.of(plan(8, plan_iteration_time_s=1.2, allowed_slowdown=None), 0.5) == Word(1.2, 1.2)
    assert Word.of(plan(8, plan_iteration_time_s=1.2), 0.5) == Word(1.0, 1.0)
    assert Word.of(plan(8, plan_iteration_time_s=9.0, allowed_slowdown=None), 0.5) == Word(1.5, 1.5)


def test_what_is_allowed_is_no_reason_to_be_stopped() -> None:
    story = simulate(plan(8, plan_iteration_time_s=1.2, allowed_slowdown=0.2), 2000, slow_plan(0.2))
    assert (story.refused_at, story.trips) == (None, [])


def test_a_job_that_gets_faster_by_itself_takes_its_plan_along() -> None:
    """Control blocks renew the measure: what was no slowdown of the old job is one of the new."""

    def faster(number: int, arm: Arm) -> float:
        return 1.0 if number < 300 else 0.95 if arm is Arm.PLAN else 0.85

    story = simulate(plan(8, every=3, allowed_slowdown=0.0), 600, faster)
    assert story.refused_at is not None
    assert story.refused_at > 300
