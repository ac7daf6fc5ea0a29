"""The slow guard in simulated jobs, by small versions of `make bench-guard`: through the real conductor."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_clocks.gpus.lags import UpLags
from joulepath_clocks.gpus.lease import End
from joulepath_clocks.ranks.conductor import Conductor
from joulepath_clocks.ranks.reason import Reason
from joulepath_clocks.ranks.slow_guard import SlowGuard
from joulepath_rules import Applied, Arm, Length, RankState, StagePlan
from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent
from tests.clocks.ranks.simulated import (
    Noise,
    Slowness,
    Story,
    bursts,
    drift,
    evaluations,
    plan,
    simulate,
    slow_plan,
)

AUTOCORRELATED = Noise(0.005, 0.8)


def test_a_plan_that_is_four_percent_slow_is_refused_among_its_first_pairs() -> None:
    """The fast guard never asks about it."""
    for seed in range(5):
        story = simulate(plan(32, length=6, every=50), 1000, slow_plan(0.04), seed, AUTOCORRELATED)
        assert story.refused_at is not None
        assert story.refused_at <= 180
        assert "SlowPlan: iterations take 1.0" in story.why
        assert "0.00% are allowed, and 0.5% as a margin" in story.why


@pytest.mark.parametrize("length", [6, 10])
@pytest.mark.parametrize("every", [2, 3, 4, 7])
@pytest.mark.parametrize("seconds", [0.2, 2.0, 60.0])
def test_evaluations_that_are_marked_cost_no_pairs(length: int, every: int, seconds: float) -> None:
    """After six to eight it is refused with them and without. An older trainer doesn't mark them, and where they are
    short nothing else tells them: then a job had run 10 to 761 pairs by then, or it never was."""
    needed = {}
    for evaluates in (None, evaluations(every, seconds, spread=0.5)):
        stories = [
            simulate(plan(99, length), 2000, slow_plan(0.04), seed, AUTOCORRELATED, evaluates=evaluates, disturbs=0.2)
            for seed in range(5)
        ]
        assert all("SlowPlan" in story.why and "longer in" in story.why for story in stories)
        needed[evaluates is not None] = [story.pairs for story in stories]
    assert max(needed[False]) <= 8
    assert max(needed[True]) <= 8
    assert abs(sum(needed[True]) - sum(needed[False])) <= 5


@given(
    st.lists(st.floats(0.001, 1e3) | st.just(0.0), min_size=1, max_size=12),
    st.sampled_from((slow_plan(0.04), slow_plan(0.0), drift())),
    st.integers(3, 9),
)
def test_how_long_evaluations_last_changes_nothing(lengths: list[float], slowness: Slowness, length: int) -> None:
    def ends(long: bool) -> Story:
        def evaluates(number: int) -> float:
            seconds = lengths[number % len(lengths)]
            return seconds if long else min(seconds, 1e-9)

        story = simulate(plan(30, length), 200, slowness, 1, AUTOCORRELATED, evaluates=evaluates)
        return replace(story, why=story.why.partition(" take ")[0])

    assert ends(long=True) == ends(long=False)


def test_a_sound_plan_is_not_refused_or_asked_about_for_evaluations() -> None:
    """Iterations after them last longer by more than the fast guard's margin."""
    for every in (2, 3, 5):
        evaluates = evaluations(every, 0.3)
        story = simulate(
            plan(120, length=6), 1440, slow_plan(0.003), 1, AUTOCORRELATED, evaluates=evaluates, disturbs=0.2
        )
        assert (story.why, story.trips, story.pairs) == ("", [], 64)


@pytest.mark.parametrize(("every", "watched"), [(2, False), (4, True), (5, True), (7, True)])
def test_what_an_evaluation_disturbs_is_not_compared_with_what_it_does_not(every: int, watched: bool) -> None:
    """Blocks of three have room for little else than one of both."""
    for slowness, why in ((slow_plan(0.0), ""), (slow_plan(0.04), "SlowPlan")):
        evaluates = evaluations(every, 0.3)
        story = simulate(
            plan(330, 3, activate_at=1), 2000, slowness, 1, AUTOCORRELATED, evaluates=evaluates, disturbs=0.2
        )
        assert story.why.partition(":")[0] == (why if watched else "PlanUnwatched")
        assert not why or story.pairs <= 9


def test_a_plan_that_cannot_be_watched_is_refused_after_eight_pairs() -> None:
    for every, pairs in ((None, 8), (5, 5 * 8)):
        spec = plan(9 if every is None else 0, length=6, every=every, activate_at=1)
        story = simulate(spec, 1000, slow_plan(0.0), 1, AUTOCORRELATED, evaluates=evaluations(1, 0.3))
        assert story.why.startswith("PlanUnwatched: of the last 8 pairs of blocks none could be measured")
        assert story.refused_at is not None
        assert story.refused_at <= 12 * (pairs + (every or 1))


def test_a_plan_that_is_asked_about_again_and_again_is_watched() -> None:
    """Each time that gives up a pair."""
    story = simulate(plan(400, length=6), 4800, bursts(3, gap=9, length=9, factor=1.3), 1, AUTOCORRELATED)
    assert len(story.trips) > 8
    assert "PlanUnwatched" not in story.why


@pytest.mark.parametrize("end", [End.FOREIGN_CLOCK, End.NO_WARDEN_LEASE])
def test_a_plan_that_waits_until_clocks_can_be_set_again_is_watched(end: End) -> None:
    """Ten minutes while somebody else sets them, say: control blocks run, and each plan block ends where it begins."""
    player = Conductor(0, (0,), UpLags(0.01))
    player.set_plan(plan(99, length=6))
    for number in range(600):
        player.on_event(MarkerEntry(1, number, MarkerEvent.STEP_BEGIN, "", 0, 0), float(number))
        assert player.state is not RankState.REFUSED, player.reason
        if player.applied.arm is Arm.PLAN:
            player.stop(Reason(end, "for now"))


def test_a_plan_that_becomes_slow_after_weeks_is_found_as_well() -> None:
    story = simulate(plan(8, length=6, every=5), 9000, slow_plan(0.02, since=4500), 1, AUTOCORRELATED)
    assert story.refused_at is not None
    assert 4500 < story.refused_at < 4500 + 25 * 60


@pytest.mark.parametrize(
    "slowness", [slow_plan(0.003), drift(), bursts(5, gap=300, length=10)], ids=["close", "drift", "bursts"]
)
def test_no_sound_plan_is_refused_whatever_the_job_does(slowness: Slowness) -> None:
    """120 pairs each, of autocorrelated noise."""
    for seed in range(3):
        assert simulate(plan(120, length=6), 1440, slowness, seed, Noise(0.01, 0.8)).why == ""


def test_what_is_allowed_is_no_reason_to_be_refused() -> None:
    spec = plan(100, length=6, plan_iteration_time_s=1.1, allowed_slowdown=0.1)
    assert simulate(spec, 1200, slow_plan(0.1), 1, AUTOCORRELATED).refused_at is None
    assert simulate(spec, 1200, slow_plan(0.13), 1, AUTOCORRELATED).refused_at is not None


def test_observe_which_sets_no_clock_is_never_refused() -> None:
    stage = StagePlan(stage=0, order=("F0",), clocks_mhz=(0,), durations_s=(1.0,))
    story = simulate(plan(32, length=6, stages=(stage,)), 400, slow_plan(0.04), 1, AUTOCORRELATED)
    assert story.refused_at is None


Blocks = list[tuple[int, Arm, list[float | None]]]
"""Number, arm and seconds of iterations, none of one that was cut."""


def told(guard: SlowGuard, blocks: Blocks, length: int = 4) -> list[str]:
    """What it says to these blocks of so many iterations."""
    said = [
        guard.period(
            Applied(arm, block, "h", None, length), Length.UNKNOWN if s is None else Length.WHOLE, s or 9.0, 1.0
        )
        for block, arm, seconds in blocks
        for s in seconds
    ]
    return [one for one in said if one is not None]


def pairs(count: int, plan_s: float, first: int = 0, short: bool = False) -> Blocks:
    chance = random.Random(1)
    blocks: Blocks = []
    for pair in range(first, first + count):
        for place, (arm, seconds) in enumerate(((Arm.PLAN, plan_s), (Arm.CONTROL, 1.0))):
            periods: list[float | None] = [9.0, *(seconds * chance.gauss(1, 0.002) for _ in range(2)), 9.0]
            blocks.append((2 * pair + place, arm, periods[1:] if short and place else periods))
    return blocks


def test_first_and_last_iterations_do_not_count() -> None:
    assert not told(SlowGuard(), pairs(40, 1.0))
    assert told(SlowGuard(), pairs(40, 1.03))


def test_iterations_that_were_cut_do_not_count_nor_those_that_follow() -> None:
    for plan_s, is_slow in ((1.0, False), (1.03, True)):
        blocks: Blocks = [(block, arm, [*most, None, 7.0, 9.0]) for block, arm, (*most, _) in pairs(40, plan_s)]
        assert bool(said := told(SlowGuard(), blocks, length=6)) == is_slow
        assert all("take 1.03" in one for one in said)


def test_a_block_that_was_cut_short_makes_no_pair() -> None:
    assert not told(SlowGuard(), pairs(40, 1.03, short=True))


def test_one_wild_pair_is_no_verdict() -> None:
    guard = SlowGuard()
    assert not told(guard, pairs(20, 1.0))
    assert not told(guard, pairs(1, 30.0, first=20))
    assert not told(guard, pairs(20, 1.0, first=21))
