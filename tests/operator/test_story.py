"""The whole story of an EnergyPlan, decided on what simulated nodes report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from joulepath_crds import EnergyPlanSpec, Granularity, Phase, Purpose

NewWorld = Callable[..., Any]


def spec(**changes: Any) -> EnergyPlanSpec:
    return EnergyPlanSpec.from_api({"job": {"name": "gpt3"}, **changes})


def test_an_annotated_job_is_profiled_planned_and_measured(new_world: NewWorld) -> None:
    world: Any = new_world()
    world.settle()
    assert world.status.phase == "Profiling"
    assert world.plan.purpose == "Sweep"
    assert world.plan.activate_at > world.iteration + 2
    world.run(130)
    assert next(iter(world.profiles.values())).spec.job == "gpt3"
    assert world.plan.purpose == "Enforce"
    world.run(110)
    assert world.status.phase == "Active"
    measured, plan = world.status.measured, world.status.plan
    assert measured.pairs >= 8
    assert plan.granularity is Granularity.INSTRUCTION
    assert 0.12 < plan.predicted_savings < plan.bound_savings < 0.16
    assert measured.savings.ci95_low - 0.005 < plan.predicted_savings < measured.savings.ci95_high + 0.005
    assert abs(measured.slowdown.mean) < 0.01
    assert world.status.predicted == f"{plan.predicted_savings:.1%}"
    assert len(world.status.frontier) == 33
    assert "%" in world.status.savings
    assert [one.type for one in world.status.conditions if one.status == "True"] == [
        "Injected",
        "Profiled",
        "Planned",
        "Active",
    ]
    assert world.plans_computed == 1


def test_phases_only_go_forward_and_each_says_something(new_world: NewWorld) -> None:
    world: Any = new_world()
    world.ranks = 0
    world.settle()
    phases = [world.status.phase]
    world.ranks = 8
    for _ in range(80):
        world.run(2, every=2)
        assert world.status.message
        if world.status.phase is not phases[-1]:
            phases.append(world.status.phase)
    world.job = replace(world.job, finished="Succeeded")
    world.settle()
    phases.append(world.status.phase)
    assert phases == [Phase.PENDING, Phase.PROFILING, Phase.PLANNED, Phase.ACTIVE, Phase.COMPLETED]


@pytest.mark.slow
def test_progress_counts_what_each_phase_waits_for(new_world: NewWorld) -> None:
    world: Any = new_world()
    world.settle()
    told: dict[Phase, list[str | None]] = {}
    for _ in range(240):
        world.run(1, every=1)
        told.setdefault(world.status.phase, []).append(world.status.progress)
    pairs = world.spec.measurement.pairs
    blocks = [int(text.removesuffix(" blocks").split("/")[0]) for text in told[Phase.PROFILING] if text]
    assert blocks == sorted(blocks), "the sweep goes on"
    assert blocks[-1] > blocks[0] + 10
    assert any(text and text.startswith("iteration ") for text in told[Phase.PLANNED])
    assert told[Phase.ACTIVE][0] == f"<4/{pairs} pairs"
    assert f"8/{pairs} pairs" in told[Phase.ACTIVE] or "8 pairs" in told[Phase.ACTIVE]
    assert told[Phase.ACTIVE][-1] in ("8 pairs", "9 pairs", "10 pairs"), "sparse by then"
    world.job = replace(world.job, finished="Succeeded")
    world.settle()
    assert world.status.progress is None


def test_a_plan_that_is_delivered_is_written_twice_only(new_world: NewWorld) -> None:
    """Once to stage it, once to activate it: never again, so that no node has to start over."""
    world: Any = new_world(spec(measurement={"pairs": 8}))
    world.settle()
    world.run(200)
    sweeps = [plan for plan in world.writes if plan.purpose is Purpose.SWEEP]
    plans = [plan for plan in world.writes if plan.purpose is Purpose.ENFORCE]
    rounds = len({plan.hash for plan in sweeps})
    assert rounds > 1
    assert [plan.activate_at is None for plan in sweeps] == [True, False] * rounds
    assert [plan.activate_at is None for plan in plans] == [True, False]
    assert len({plan.hash for plan in plans}) == 1


def test_a_plan_is_not_activated_before_every_rank_has_it(new_world: NewWorld) -> None:
    world: Any = new_world()
    world.unstaged = {3}
    world.settle()
    world.run(5)
    assert world.plan.activate_at is None
    assert "7 of 8" in world.status.message
    world.unstaged = set()
    world.run(1, every=1)
    assert world.plan.activate_at > world.iteration


@pytest.mark.slow
def test_clocks_that_a_rank_missed_cost_only_that_stage_a_point(new_world: NewWorld) -> None:
    world: Any = new_world()
    measured = world._measurements
    world._measurements = lambda rank: [one for one in measured(rank) if (rank, one.clock_mhz) != (3, 1095)]
    world.settle()
    world.run(160)
    stages = next(iter(world.profiles.values())).spec.stages
    points = [len(kind.points) for stage in stages for kind in stage.kinds]
    assert max(points) > 6
    assert points[6] == points[7] == max(points) - 1
    assert world.status.plan.predicted_savings > 0.1


def test_the_next_run_starts_from_the_stored_profile(new_world: NewWorld) -> None:
    world: Any = new_world()
    world.settle()
    world.run(130)
    world.restart_job()
    world.writes.clear()
    world.iteration = 5
    world.settle()
    assert world.status.job_uid == "uid-two-0000"
    assert not world.status.measured
    assert "is checked before it is used again" in world.condition("Profiled").message
    world.run(40)
    (blocks,) = {plan.sweep.clocks_mhz for plan in world.writes if plan.sweep}
    high, low = sorted({clock for clock in blocks if clock}, reverse=True)
    assert 1410 > high > low > 855
    assert world.plan.purpose == "Enforce"
    assert world.condition("Profiled").reason == "Reused"
    assert f"at {high}, {low} MHz work has changed by +0.0% in time" in world.condition("Profiled").message


def test_a_run_that_may_not_reuse_sweeps_again(new_world: NewWorld) -> None:
    world: Any = new_world(spec(profiling={"reuse": False}))
    world.settle()
    world.run(130)
    world.restart_job()
    world.iteration = 5
    world.settle()
    assert world.plan.purpose == "Sweep"


@pytest.mark.slow
def test_a_stored_profile_that_has_drifted_evenly_is_refreshed(new_world: NewWorld) -> None:
    world: Any = new_world()
    world.settle()
    world.run(130)
    ((name, stored),) = world.profiles.items()
    slower = stored.spec.model_dump()
    for stage in slower["stages"]:
        for kind in stage["kinds"]:
            for point in kind["points"]:
                point["time_s"] *= 1.1
    world.profiles[name] = replace(stored, spec=type(stored.spec)(**slower), job_uid="uid-of-another-run")
    world.restart_job()
    world.settle()
    assert world.plan.purpose == "Sweep"
    world.run(60)
    assert world.status.phase == "Active"
    assert world.condition("Profiled").reason == "Refreshed"
    assert "work has changed by -9.1% in time" in world.condition("Profiled").message
    found = world.profiles[name]
    assert found.job_uid == "uid-two-0000"
    for kind, before in zip(found.spec.stages[3].kinds, stored.spec.stages[3].kinds, strict=True):
        for point, other in zip(kind.points, before.points, strict=True):
            assert (point.clock_mhz, point.time_s) == (other.clock_mhz, pytest.approx(other.time_s, rel=1e-6))


@pytest.mark.slow
def test_a_new_attempt_withdraws_the_plan_and_replans_from_the_profile(new_world: NewWorld) -> None:
    world: Any = new_world()
    world.settle()
    world.run(150)
    first = world.plan
    world.attempt, world.ranks = 1, 4
    world.settle()
    assert not world.plans
    assert world.status.phase == "Pending"
    world.ranks = 8
    world.writes.clear()
    world.settle()
    assert {plan.purpose for plan in world.writes} == {Purpose.ENFORCE}
    assert world.plan.attempt == 1
    assert world.plan.hash != first.hash
    world.run(60)
    assert world.status.phase == "Active"


@pytest.mark.parametrize("stop_after", [1, 20, 60, 100, 130, 170])
def test_an_operator_that_restarts_anywhere_changes_nothing(new_world: NewWorld, stop_after: int) -> None:
    """All that it knows is in the cluster; deciding twice on the same cluster writes nothing."""
    world: Any = new_world()
    world.settle()
    world.run(stop_after)
    world.writes.clear()
    plans, computed = dict(world.plans), world.plans_computed
    for _ in range(3):
        world.settle()
    assert world.plans == plans
    assert not world.writes
    assert world.plans_computed == computed


def test_an_operator_killed_between_status_and_plan_delivers_the_plan(new_world: NewWorld) -> None:
    world: Any = new_world()
    world.settle()
    world.run(150)
    assert world.status.phase == "Active"
    before = world.plan
    world.plans.clear()
    world.settle()
    assert world.plan.hash == before.hash


def test_an_answer_to_what_was_asked_before_the_spec_changed_is_not_taken(new_world: NewWorld) -> None:
    world: Any = new_world()
    world.settle()
    world.run(140)
    world.plans.clear()
    asked = world.decide().ask_planner
    world.spec, world.generation = spec(maxSlowdownPercent=5), 2
    decision = world.decide(asked, world.answer(asked))
    assert decision.write_plan is None
    assert decision.ask_planner.max_slowdown == 0.05


@pytest.mark.slow
def test_a_changed_spec_makes_a_new_plan_and_new_measurements(new_world: NewWorld) -> None:
    world: Any = new_world()
    world.settle()
    world.run(200)
    old = world.plan
    world.spec, world.generation = spec(maxSlowdownPercent=5), 2
    world.settle()
    assert world.plan.hash != old.hash
    assert not world.status.measured
    world.run(120)
    assert world.status.measured.slowdown.mean > 0.02
    assert world.status.observed_generation == 2


def test_a_job_that_ends_keeps_its_figures_and_loses_its_plan(new_world: NewWorld) -> None:
    world: Any = new_world()
    world.settle()
    world.run(200)
    savings = world.status.savings
    world.job = None
    world.settle()
    assert world.status.phase == "Completed"
    assert not world.plans
    assert world.status.savings == savings
    assert savings in world.status.message
    assert "deleted" in world.status.message


def test_observe_sets_no_clock_and_measures_zero(new_world: NewWorld) -> None:
    world: Any = new_world(spec(mode="Observe"))
    world.settle()
    world.run(130)
    assert all(not any(stage.clocks_mhz) for plan in world.writes for stage in plan.stages)
    assert {plan.purpose for plan in world.writes} == {Purpose.ENFORCE}
    assert world.condition("Profiled").reason == "ObserveOnly"
    savings = world.status.measured.savings
    assert savings.ci95_low <= 0 <= savings.ci95_high


@pytest.mark.slow
def test_observe_with_a_stored_profile_tells_the_plan_but_keeps_default_clocks(new_world: NewWorld) -> None:
    world: Any = new_world()
    world.settle()
    world.run(130)
    world.restart_job()
    world.spec, world.generation = spec(mode="Observe"), 2
    world.settle()
    assert world.status.plan.predicted_savings > 0.1
    assert not any(clock for stage in world.plan.stages for clock in stage.clocks_mhz)
    assert world.plan.plan_iteration_time_s == world.plan.control_iteration_time_s


@pytest.mark.slow
def test_without_a_known_lag_the_plan_is_by_phase_at_the_finest(new_world: NewWorld) -> None:
    world: Any = new_world()
    world.lag = None
    world.settle()
    world.run(130)
    assert world.status.plan.granularity in (Granularity.PHASE, Granularity.RANK)


@pytest.mark.slow
def test_gpus_that_know_no_lag_are_planned_for_with_that_of_the_profile(new_world: NewWorld) -> None:
    world: Any = new_world()
    world.settle()
    world.run(130)
    known = world.status.plan
    world.lag = None  # agents that were started anew, or GPUs that were never swept
    world.restart_job()
    world.settle()
    world.run(60)
    assert world.condition("Profiled").reason == "Reused"
    assert world.status.plan.granularity == known.granularity
    assert world.status.plan.predicted_savings > 0.9 * known.predicted_savings
