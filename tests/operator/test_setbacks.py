"""What is tried again before it is final: models that are off, lost sweeps, a planner that is late."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.facts.request import Answer, PlanRefusal, PlanRequest, Request
from tests.operator.test_decide import NewWorld, spec


def test_a_model_that_does_not_fit_is_refused_for_good(new_world: NewWorld) -> None:
    world = new_world(slow=1.03)
    world.settle()
    world.run(150)
    assert world.status.phase == "Profiling"
    assert world.condition("Planned").reason == "ModelMismatch"
    assert not world.plans, "meanwhile GPUs run default clocks"
    pauses: list[int] = []
    while world.status.phase == "Profiling":
        assert f"Try {len(pauses) + 2} of 6" in world.status.message
        assert world.status.setback.next_at in world.status.message
        pause = world.decide().requeue_after_s
        pauses.append(60 * 2 ** len(pauses))
        assert 0 < pause <= pauses[-1]
        world.later_s += math.ceil(pause)
        world.settle()
    assert len(pauses) == 5
    assert world.status.phase == "Refused"
    assert world.condition("Planned").reason == "ModelMismatch"
    computed = world.plans_computed
    assert computed == 6
    world.run(20)
    assert world.plans_computed == computed
    assert not world.plans


def test_a_model_is_made_again_with_what_is_measured_by_then(new_world: NewWorld) -> None:
    """A neighbour that is gone, and a first profile in which instructions took longer than they do."""
    world = new_world()
    measured = world._measurements

    def slower(rank: int) -> list[Any]:
        return [one.model_copy(update={"time_s": 1.05 * one.time_s}) for one in measured(rank)]

    world._measurements = slower
    world.settle()
    world.run(150)
    assert world.condition("Planned").reason == "ModelMismatch"
    world._measurements = measured
    world.settle_later()
    assert world.status.phase == "Planned"
    world.run(40)
    assert world.status.phase == "Active"
    assert world.condition("Degraded").status == "False"


@pytest.mark.parametrize("edited", [{"maxSlowdownPercent": 1}, {"stragglers": "Ignore"}])
def test_another_spec_tries_a_model_that_was_off_anew_whatever_is_edited(
    new_world: NewWorld, edited: dict[str, Any]
) -> None:
    """That is what messages say a user may do; which edit helps only he knows."""
    world = new_world(slow=1.03)
    world.settle()
    world.run(150)
    computed = world.plans_computed
    world.settle()
    assert world.plans_computed == computed
    world.settle_later()
    assert "Try 3 of 6" in world.status.message
    computed = world.plans_computed
    world.spec, world.generation = spec(**edited), 2
    world.settle()
    assert world.plans_computed == computed + 1
    assert "Try 2 of 6" in world.status.message


def lose_sweeps(world: Any, until: Callable[[], bool]) -> set[str]:
    """The hashes of the sweeps, while no rank learns anything but default clocks."""
    world._swept, sweeps = lambda: {0}, set[str]()
    world.settle()
    while not until():
        sweeps |= {plan.spec.hash for plan in world.plans.values()}
        if world.plans:
            world.run(1, every=1)
        else:
            world.later_s += 60
            world.settle()
    return sweeps


def test_a_sweep_that_ends_with_too_few_clocks_is_made_again_after_pauses_then_refused(new_world: NewWorld) -> None:
    world = new_world()
    world.reasons[3] = "OtherWork: of the iterations of a block none was measured"
    assert len(lose_sweeps(world, lambda: world.status.setback is not None)) == 2, "once more at once"
    assert world.status.phase == "Profiling"
    assert world.condition("Profiled").reason == "SweepIncomplete"
    assert not world.plans, "meanwhile GPUs run default clocks"
    assert "The agent of rank 3 (pod " in world.status.message
    assert "says: OtherWork: of the iterations" in world.status.message
    assert "Try 2 of 2" in world.status.message
    lose_sweeps(world, lambda: world.status.phase == "Refused")
    assert world.condition("Profiled").reason == "SweepIncomplete"
    assert "The last of 2 tries" in world.status.message
    assert world.later_s >= 60 * 10
    begun = [plan for plan in world.writes if plan.activate_at is None]
    assert len(begun) == 3


@pytest.mark.parametrize(("blocks", "sweeps"), [(0.1, 1), (13.5, 1), (14.5, 2)])
def test_no_lost_sweep_is_made_again_that_would_take_more_joules_than_allowed(
    active: Any, new_world: NewWorld, blocks: float, sweeps: int
) -> None:
    (profile,) = active.profiles.values()
    joules = blocks * 4 * profile.spec.energy_per_iteration_j
    world = new_world(spec(profiling={"maxEnergyJoules": joules}))
    assert len(lose_sweeps(world, lambda: world.status.phase == "Refused")) == sweeps
    assert world.condition("Profiled").reason == "SweepIncomplete"
    assert "maxEnergyJoules" in world.status.message
    assert world.writes[-1].sweep.earlier is None or world.writes[-1].sweep.earlier.iterations == 7 * 4


@pytest.mark.slow
def test_sweeps_that_an_upgrade_of_all_agents_has_spoiled_are_made_again(new_world: NewWorld) -> None:
    world = new_world()
    swept = world._swept
    lose_sweeps(world, lambda: world.status.setback is not None)
    world._swept = swept
    world.later_s += 600
    world.settle()
    world.run(200)
    assert world.status.phase == "Active"
    assert world.condition("Degraded").status == "False"


def test_a_planner_that_takes_too_long_is_asked_again_after_a_pause_then_refused(new_world: NewWorld) -> None:
    world = new_world()
    plan, world.answer = world.answer, too_late(world)
    world.settle()
    world.run(150)
    assert world.status.phase == "Profiling"
    assert world.condition("Planned").reason == "PlannerTimeout"
    assert world.status.progress.startswith("try 2/6 at ")
    final = world.copy()
    world.answer = plan
    world.settle_later()
    assert world.status.phase == "Planned"
    while final.status.phase == "Profiling":
        final.settle_later()
    assert final.plans_computed == 6
    assert final.condition("Planned").reason == "PlannerTimeout"
    assert "The last of 6 tries" in final.status.message


def too_late(world: Any) -> Callable[[Request], Answer]:
    """The answers of a planner that takes too long for a plan."""
    answer, late = world.answer, PlanRefusal(Refusal.PLANNER_TIMEOUT, "The planner took more than 120 s.")
    return lambda request: late if isinstance(request, PlanRequest) else answer(request)


def test_once_a_plan_is_in_force_setbacks_are_counted_anew_and_a_planner_that_is_late_takes_none_back(
    new_world: NewWorld,
) -> None:
    world = new_world()
    plan, world.answer = world.answer, too_late(world)
    world.settle()
    world.run(150)
    for _ in range(3):
        world.settle_later()
    assert world.status.setback.tries == 4
    world.answer = plan
    world.settle_later()
    world.run(150)
    assert world.status.phase == "Active"
    assert not world.status.setback
    assert world.plans_computed == 5, "what is in force isn't planned anew for that"
    in_force, (profile,) = world.plans, world.profiles.values()
    again = profile.spec.model_copy(update={"iteration_time_noise_s": 0.5 * profile.spec.iteration_time_noise_s + 1e-4})
    world.profiles = {profile.name: replace(profile, spec=again)}
    world.answer = too_late(world)
    for tries in (1, 2):
        world.settle_later() if tries > 1 else world.settle()
        assert world.status.setback.tries == tries
        assert world.plans == in_force
        assert world.status.phase == "Active"
        assert world.condition("Active").status == "True"
        assert world.condition("Planned").reason == "PlannerTimeout"
        assert "stays in force" in world.status.message


def test_a_plan_that_is_slower_than_allowed_by_now_does_not_wait_for_a_planner_that_is_late(active: Any) -> None:
    (stored,) = active.plans.values()
    slower = stored.spec.model_copy(update={"allowed_slowdown": 0.05})
    active.plans = {stored.name: replace(stored, spec=slower)}
    active.spec, active.generation, active.answer = spec(maxSlowdownPercent=1), 2, too_late(active)
    active.settle()
    assert active.status.setback.tries == 1
    assert not active.plans


@pytest.mark.slow
def test_what_the_first_sweep_lost_the_second_one_finds(new_world: NewWorld) -> None:
    world = new_world()
    swept, world._swept = world._swept, lambda: {0}
    world.settle()
    first = world.plan.hash
    while world.plan.hash == first:
        world.run(1, every=1)
    world._swept = swept
    world.run(200)
    assert world.status.phase == "Active"
