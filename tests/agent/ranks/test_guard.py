"""The guard in simulated jobs: it stops a plan that is slow, and none for what a neighbour does."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from joulepath_agent.ranks.conductor import Conductor
from joulepath_crds import Arm, Blocks, JobPlanSpec, Purpose, RankState, StagePlan
from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent

Slowness = Callable[[int, Arm], float]
"""Factor on the second that an iteration takes, by its number and arm."""


def plan(pairs: int, length: int = 10) -> JobPlanSpec:
    """In force from iteration 0 on, said to cost no time."""
    return JobPlanSpec(
        energy_plan="plan",
        job="job",
        job_uid="uid",
        purpose=Purpose.ENFORCE,
        hash="one",
        activate_at=0,
        stages=(StagePlan(stage=0, order=("F0",), clocks_mhz=(900,), durations_s=(1.0,)),),
        default_clock_mhz=1410,
        blocks=Blocks(iterations=length, pairs=pairs),
        control_iteration_time_s=1.0,
        plan_iteration_time_s=1.0,
    )


@dataclass
class Story:
    """What became of a plan."""

    refused_at: int | None = None
    trips: list[int] = field(default_factory=list)
    arms: list[Arm] = field(default_factory=list)


def simulate(spec: JobPlanSpec, iterations: int, slowness: Slowness, seed: int = 1, noise: float = 0.01) -> Story:
    """One rank, closed loop: what the guard decides is what the next iteration runs."""
    player, chance, story, now_s = Conductor(0, (0,), 0.01), random.Random(seed), Story(), 0.0
    player.set_plan(spec)
    for number in range(iterations):
        asking = player.reason
        player.on_event(MarkerEntry(1, number, MarkerEvent.STEP_BEGIN, "", 0, 0), now_s)
        if player.state is RankState.REFUSED:
            story.refused_at = number
            return story
        if player.reason != asking and player.reason.endswith("to blame"):
            story.trips.append(number)
        story.arms.append(player.applied.arm)
        now_s += slowness(number, player.applied.arm) * chance.gauss(1.0, noise)
    return story


def burst(first: int, last: int, factor: float = 1.3) -> Slowness:
    """Of a neighbour, in all arms."""
    return lambda number, _: factor if first <= number <= last else 1.0


def bursts(seed: int, gap: float, length: float, factor: float = 1.3) -> Slowness:
    """Of a neighbour that comes and goes, mean iterations between and during its visits."""
    chance = random.Random(seed)
    states: list[bool] = [False]

    def slow(number: int, _: Arm) -> float:
        while len(states) <= number:
            states.append(chance.random() < (1 - 1 / length if states[-1] else 1 / gap))
        return factor if states[number] else 1.0

    return slow


def test_noise_alone_never_trips_it() -> None:
    story = simulate(plan(pairs=8), 20_000, lambda *_: 1.0, noise=0.02)
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
