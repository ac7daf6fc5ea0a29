"""Whatever becomes of a job and its EnergyPlan, in any order: no plan outlives its reason, none is lost for good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joulepath_crds import EnergyPlanSpec, EnergyPlanStatus

GUARD: Final = "GuardTripped: the last 5 plan iterations took 4 s, the bound is 3 s"


def of_job(**changes: Any) -> Callable[[Any], None]:
    """Of the job, if there is one."""

    def change(world: Any) -> None:
        if world.job is not None:
            world.job = replace(world.job, **changes)

    return change


def asks(**changes: Any) -> Callable[[Any], None]:
    """Of the EnergyPlan."""

    def change(world: Any) -> None:
        asked = world.spec.to_api() | changes
        world.spec, world.generation = EnergyPlanSpec.from_api(asked), world.generation + 1

    return change


def is_made(world: Any) -> None:
    """Another run of the job, by its name."""
    world.restart_job(f"uid-{world.iteration}-{len(world.writes)}-{world.later_s}")


def is_deleted(world: Any) -> None:
    world.job = None


def starts_anew(world: Any) -> None:
    """Its processes, in the same pods or in others."""
    world.attempt, world.iteration = world.attempt + 1, world.iteration + 1


def trains(world: Any) -> None:
    if world.job is not None:
        world.run(40)


def plan_is_made_anew(world: Any) -> None:
    """The EnergyPlan is deleted, and what it owns with it; another comes by its name."""
    world.status, world.generation, world.plans = EnergyPlanStatus(), 1, {}


def ranks(count: int) -> Callable[[Any], None]:
    """So many report."""

    def change(world: Any) -> None:
        world.ranks = count

    return change


def refuses(world: Any) -> None:
    world.refusal = {3: GUARD}


EVENTS: Final = {
    "trains": trains,
    "suspended": of_job(suspended=True),
    "resumed": of_job(suspended=False),
    "succeeded": of_job(finished="Succeeded"),
    "failed": of_job(finished="Failed"),
    "deleted": is_deleted,
    "made": is_made,
    "processes start anew": starts_anew,
    "annotated for another": of_job(annotation="another"),
    "not annotated": of_job(annotation=None),
    "annotated": of_job(annotation="plan"),
    "paused": asks(mode="Observe"),
    "goes on": asks(mode="Enforce"),
    "edited": asks(maxSlowdownPercent=5),
    "plan made anew": plan_is_made_anew,
    "node refuses": refuses,
    "half is silent": ranks(4),
    "all are silent": ranks(0),
    "all report": ranks(8),
}


def assert_sound(world: Any) -> None:
    """What is there has a reason to be."""
    job, plans = world.job, [stored.spec for stored in world.plans.values()]
    if job is None or job.finished or job.suspended or job.annotation != "plan":
        assert not plans, world.status
    for plan in plans:
        assert plan.job_uid == job.uid
        assert plan.attempt == world.attempt or world.ranks < world.size
        assert world.spec.mode == "Enforce" or not any(clock for stage in plan.stages for clock in stage.clocks_mhz)
    assert job is None or world.status.job_uid == job.uid


# The world is made once, and each example plays on a copy.
@pytest.mark.slow
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(happened=st.lists(st.sampled_from(sorted(EVENTS)), min_size=1, max_size=8))
def test_no_plan_outlives_its_reason_and_a_job_that_may_have_one_gets_it(once_active: Any, happened: list[str]) -> None:
    world = once_active.copy()
    for event in happened:
        EVENTS[event](world)
        world.settle()
        assert_sound(world)
    world.refusal, world.ranks = {}, world.size
    asks(mode="Enforce")(world)
    if world.job is None or world.job.finished:
        is_made(world)
    of_job(annotation="plan", suspended=True)(world)
    world.settle()
    of_job(suspended=False)(world)
    world.settle()
    world.run(200, every=20)
    assert world.status.phase == "Active", world.status.message
    assert_sound(world)
