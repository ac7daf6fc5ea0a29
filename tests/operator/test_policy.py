"""The administrator's word before the user's: what is planned, refused and told under an EnergyPolicy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_crds import EnergyPlanSpec, EnergyPolicySpec, JobPlanSpec
from joulepath_operator.control.index import Index
from joulepath_operator.facts.names import ENERGY_PLANS, ENERGY_POLICIES
from joulepath_operator.facts.policy import bounded, every, in_words, needs_labels
from tests.operator.conftest import World
from tests.operator.test_no_pipeline import Replicas

NewWorld = Callable[..., Any]
LEAST_MHZ = 1200


def spec(**changes: Any) -> EnergyPlanSpec:
    return EnergyPlanSpec.from_api({"job": {"name": "gpt3"}, **changes})


def policy(**changes: Any) -> EnergyPolicySpec:
    return EnergyPolicySpec.from_api(changes)


def lowest(plan: JobPlanSpec) -> int:
    """Of all clocks that it locks."""
    clocks = {clock for stage in plan.stages for clock in stage.clocks_mhz}
    return min((clocks | set(plan.sweep.clocks_mhz if plan.sweep else ())) - {0}, default=10_000)


@pytest.fixture(scope="module")
def once_in_force(new_world: NewWorld) -> World:
    world: World = new_world()
    world.settle()
    while world.status.phase != "Active":
        world.run(16, every=16)
    return world


@pytest.fixture
def in_force(once_in_force: World) -> World:
    """A job whose plan is in force, which begins to be measured."""
    return once_in_force.copy()


def test_a_pause_keeps_the_plan_and_its_end_brings_it_back_without_another(in_force: World) -> None:
    before, computed = in_force.plan, in_force.plans_computed
    in_force.policy = policy(paused=True, pauseReason="the grid")
    in_force.settle()
    active = in_force.condition("Active")
    assert (active.status, active.reason) == ("False", "Paused")
    assert active.message.startswith("EnergyPolicy default pauses all plans: the grid. All GPUs run default clocks")
    assert (in_force.status.phase, in_force.status.progress) == ("Planned", "paused")
    assert in_force.status.message == active.message
    assert [in_force.condition(kind).status for kind in ("Injected", "Profiled", "Planned")] == ["True"] * 3
    in_force.run(40, every=20)
    in_force.policy = policy()
    in_force.run(8)
    assert in_force.status.phase == "Active"
    assert in_force.plan == before
    assert in_force.plans_computed == computed


def test_nothing_is_profiled_nor_planned_while_paused(new_world: NewWorld) -> None:
    world = new_world()
    world.policy = policy(paused=True)
    world.run(20)
    assert not world.writes
    assert world.condition("Active").reason == "Paused"
    world.policy = policy()
    world.settle()
    assert world.plan.sweep is not None


@pytest.mark.parametrize("profiling", [{}, {"maxEnergyJoules": 4e6}])
def test_a_sweep_that_is_paused_again_and_again_is_not_taken_for_one_that_agents_have_lost(
    new_world: NewWorld, profiling: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world(spec(profiling=profiling))
    world.settle()
    measured = {0}
    monkeypatch.setattr(world, "_swept", lambda: measured)  # of a round that was cut off, nothing
    for _ in range(4):
        world.run(8, every=1)
        assert world.plan.activate_at is not None
        world.policy = policy(paused=True)
        world.run(300, every=20)
        assert world.status.progress == "paused"
        world.policy = policy()
        world.settle()
        assert world.status.setback is None
        assert (world.status.phase, world.condition("Profiled").reason) == ("Profiling", "Sweeping")
    monkeypatch.undo()
    while world.status.phase != "Active":
        world.run(16, every=16)


def test_iterations_of_a_round_that_a_pause_cuts_off_count_on(new_world: NewWorld) -> None:
    """Of spec.profiling.maxEnergyJoules: each pause has the round begin anew."""
    world = new_world()
    world.settle()
    for pauses in range(1, 4):
        world.run(8, every=1)
        assert world.plan.activate_at is not None
        begun = world.iteration - world.plan.activate_at
        before = world.plan.sweep.earlier.iterations if world.plan.sweep.earlier else 0
        world.policy = policy(paused=True)
        world.settle()
        assert world.plan.sweep.earlier.iterations >= before + begun > before, pauses
        world.policy = policy()
        world.settle()


def test_a_round_that_has_measured_all_before_a_pause_is_not_begun_anew(new_world: NewWorld) -> None:
    world = new_world()
    world.settle()
    world.run(4, every=4)
    before = world.plan
    assert before.activate_at is not None
    world.iteration = before.activate_at + 60
    world.policy = policy(paused=True)
    world.settle()
    assert world.plan == before


def test_a_plan_that_may_be_slower_than_is_allowed_by_now_goes_before_guards_refuse_it(new_world: NewWorld) -> None:
    world = new_world(spec(maxSlowdownPercent=10))
    world.settle()
    while world.status.phase != "Active":
        world.run(16, every=16)
    world.policy = policy(maxSlowdownPercent=2)
    world.refusal = {0: "GuardTripped: plan iterations took 1.1 s, then 5 at default clocks 1 s, 3 times in a row"}
    decision = world.decide()
    assert decision.delete_plans
    assert decision.status.phase != "Refused"
    world.refusal = {}
    world.run(16)
    assert world.status.phase == "Active"
    assert world.plan.allowed_slowdown == pytest.approx(0.02)


def test_who_asks_for_more_slowdown_than_is_allowed_gets_what_is_and_is_told(in_force: World) -> None:
    in_force.spec, in_force.generation = spec(maxSlowdownPercent=10), 2
    in_force.policy = policy(maxSlowdownPercent=2)
    in_force.run(8)
    assert in_force.plan is not None
    assert in_force.plan.allowed_slowdown == pytest.approx(0.02)
    told = "By EnergyPolicy default, maxSlowdownPercent is 2, not 10."
    assert in_force.status.policy == told
    assert in_force.condition("Planned").message.endswith(told)
    in_force.policy = policy(maxSlowdownPercent=5)
    in_force.run(8)
    assert in_force.plan.allowed_slowdown == pytest.approx(0.05)
    in_force.policy = policy()
    in_force.run(8)
    assert in_force.plan.allowed_slowdown == pytest.approx(0.1)
    assert in_force.status.policy is None


def test_a_plan_with_too_low_a_clock_goes_at_once_and_the_next_one_has_none(in_force: World) -> None:
    assert in_force.plan is not None
    assert lowest(in_force.plan) < LEAST_MHZ
    in_force.policy = policy(minClocks=[{"gpuModel": "Virtual A100", "clockMHz": LEAST_MHZ}])
    decision = in_force.decide()
    assert decision.delete_plans
    in_force.run(8)
    assert in_force.plan is not None
    assert LEAST_MHZ <= lowest(in_force.plan) < 1410
    assert in_force.status.policy == f"By EnergyPolicy default, no clock is below {LEAST_MHZ} MHz on Virtual A100."


def test_a_job_is_profiled_above_the_least_clock(new_world: NewWorld) -> None:
    world = new_world()
    world.policy = policy(minClocks=[{"gpuModel": "*", "clockMHz": LEAST_MHZ}])
    world.settle()
    while world.status.phase != "Active":
        world.run(16, every=16)
    assert all(lowest(plan) >= LEAST_MHZ for plan in world.writes)
    assert any(plan.sweep for plan in world.writes)


def test_a_sweep_that_goes_too_low_gives_way_to_another(new_world: NewWorld) -> None:
    world = new_world()
    world.run(8)
    assert lowest(world.plan) < LEAST_MHZ
    world.policy = policy(minClocks=[{"gpuModel": "Virtual A100", "clockMHz": LEAST_MHZ}])
    world.settle()
    assert world.plan.sweep is not None
    assert lowest(world.plan) >= LEAST_MHZ


def test_too_few_clocks_above_the_least_one_are_told_and_looked_for_again_once_it_is_lower(
    new_world: NewWorld,
) -> None:
    world = new_world()
    world.policy = policy(minClocks=[{"gpuModel": "*", "clockMHz": 1405}])
    world.settle()
    assert world.condition("Profiled").reason == "TooFewClocks"
    assert world.status.message.endswith("By EnergyPolicy default, no clock is below 1405 MHz on *.")
    world.policy = policy(minClocks=[{"gpuModel": "*", "clockMHz": LEAST_MHZ}])
    world.settle()
    assert world.plan.sweep is not None


def test_a_least_clock_that_leaves_nothing_to_plan_is_told_as_the_reason(in_force: World) -> None:
    in_force.policy = policy(minClocks=[{"gpuModel": "*", "clockMHz": 1410}])
    in_force.run(8)
    assert in_force.status.phase == "Refused"
    assert in_force.status.message.endswith("By EnergyPolicy default, no clock is below 1410 MHz on *.")


@pytest.mark.parametrize(
    ("barring", "names"),
    [
        ({"jobKinds": ["JobSet", "Job"]}, "lets JobSet, Job have EnergyPlans (spec.jobKinds), and spec.job.kind is Py"),
        ({"namespaces": {"names": ["a", "b", "c", "d"]}}, "lets namespaces a, b, c and others have EnergyPlans"),
        ({"namespaces": {"matchLabels": {"energy": "yes"}}}, "those with labels energy=yes have EnergyPlans (spec.nam"),
    ],
)
def test_who_may_not_is_told_the_field_the_value_and_whom_to_ask(
    in_force: World, barring: dict[str, Any], names: str
) -> None:
    in_force.policy = policy(**barring)
    in_force.settle()
    assert (in_force.status.phase, in_force.condition("Degraded").reason) == ("Refused", "NotAllowed")
    assert names in in_force.status.message
    assert "ask whoever administers this cluster" in in_force.status.message
    assert in_force.plan is None
    in_force.labels = {"energy": "yes", "more": "of it"}
    in_force.policy = policy(jobKinds=["PyTorchJob"], namespaces={"names": ["a"], "matchLabels": {"energy": "yes"}})
    in_force.run(12)
    assert in_force.plan is not None
    assert in_force.status.phase == "Active"


def test_a_job_that_is_over_stays_so_whatever_is_allowed_by_then(in_force: World) -> None:
    assert in_force.job is not None
    in_force.job = type(in_force.job)(in_force.job.uid, "gpt3", "plan", "Succeeded")
    in_force.policy = policy(namespaces={"names": ["another"]})
    in_force.settle()
    assert in_force.status.phase == "Completed"


def test_an_idle_job_is_planned_for_anew_where_the_policy_allows_more() -> None:
    world = Replicas(spec(maxSlowdownPercent=5))
    world.policy = policy(maxSlowdownPercent=0)
    world.settle()
    while world.status.phase != "Idle":
        world.run(16, every=16)
    assert world.status.message.endswith("EnergyPolicy default allows 0 at most.")
    computed = world.plans_computed
    world.run(8)
    assert world.plans_computed == computed
    for paused in (True, False):
        world.policy = policy(maxSlowdownPercent=0, paused=paused)
        world.run(8)
        assert (world.status.phase, world.plans_computed) == ("Idle", computed), "a pause takes nothing from it"
    world.policy = policy()
    world.run(8)
    assert world.plan is not None
    assert world.plan.allowed_slowdown == pytest.approx(0.05)


def test_controls_are_as_seldom_as_the_policy_wants_and_never_more_often_than_without(in_force: World) -> None:
    for percent, pairs in ((0.05, 1000), (0.5, 100), (1, 50), (20, 50)):
        assert every(policy(measurement={"maxControlPercent": percent})) == pairs
    in_force.policy = policy(measurement={"maxControlPercent": 0.5})
    in_force.run(8)
    assert in_force.plan is not None
    assert in_force.plan.blocks is not None
    assert in_force.plan.blocks.every == 100
    assert in_force.status.policy is not None
    assert "one pair of blocks in 100 is measured" in in_force.status.policy


percents = st.none() | st.floats(1, 50)


@given(percents, percents, st.floats(1, 50), st.floats(1, 50))
def test_what_is_left_is_never_more_than_either_allows_and_what_is_cut_is_told(
    most: float | None, most_profiling: float | None, asked: float, asked_profiling: float
) -> None:
    allowed = policy(maxSlowdownPercent=most, profiling={"maxSlowdownPercent": most_profiling})
    world = World(spec(maxSlowdownPercent=asked, profiling={"maxSlowdownPercent": asked_profiling}))
    world.policy, world.job = allowed, None
    left = bounded(world.observe()).spec
    assert left.max_slowdown_percent == min(asked, 50 if most is None else most)
    assert left.profiling.max_slowdown_percent == min(
        asked_profiling, 100 if most_profiling is None else most_profiling
    )
    assert (left == world.spec) == (in_words(world.spec, allowed) is None)


def test_labels_are_looked_up_only_where_they_decide() -> None:
    labelled = {"matchLabels": {"energy": "yes"}, "names": ["a"]}
    assert needs_labels(policy(namespaces=labelled), "b")
    assert not needs_labels(policy(namespaces=labelled), "a")
    assert not needs_labels(policy(namespaces={"names": ["a"]}), "b")
    assert not needs_labels(policy(), "b")


def test_a_policy_concerns_every_plan_and_goes_with_its_object() -> None:
    index = Index()
    keys = {("a", "one"), ("b", "two")}
    for namespace, name in keys:
        metadata = {"namespace": namespace, "name": name}
        index.put(ENERGY_PLANS, {"metadata": metadata, "spec": {"job": {"name": "job"}}})
    body: dict[str, Any] = {"metadata": {"name": "default", "uid": "u", "resourceVersion": "5"}}
    assert index.policy() == EnergyPolicySpec()
    assert index.put(ENERGY_POLICIES, {**body, "spec": {"paused": True}}) == keys
    assert index.policy().paused
    assert index.put(ENERGY_POLICIES, {**body, "spec": {"maxSlowdownPercent": "much"}}) == keys
    assert index.policy().paused, "what can't be read pauses"
    assert index.drop(ENERGY_POLICIES, body) == keys
    assert index.policy() == EnergyPolicySpec()
