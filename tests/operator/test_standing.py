"""The word for ever: pairs that become sparse and never end, and plans that don't keep it taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from joulepath_crds import MOST_BLOCKS, Arm, EnergyPlanSpec, arm_of

NewWorld = Callable[..., Any]
Begun = Callable[..., Any]


def spec(**changes: Any) -> EnergyPlanSpec:
    return EnergyPlanSpec.from_api({"job": {"name": "gpt3"}, **changes})


@pytest.fixture(scope="module")
def once_profiled(new_world: NewWorld) -> Any:
    """A job whose profile is there, to be copied."""
    world = new_world()
    world.settle()
    while not world.profiles:
        world.run(16, every=16)
    return world


@pytest.fixture
def begun(once_profiled: Any) -> Callable[..., Any]:
    """A job whose plan begins now, under an EnergyPlan of one's own."""

    def begin(excess: float = 0.0, **changes: Any) -> Any:
        world = once_profiled.copy()
        world.excess, world.spec, world.generation = excess, spec(**changes), 2
        world.settle()
        world.run(4)
        assert world.plan.activate_at is not None
        world.iteration = world.plan.activate_at
        world.settle()
        return world

    return begin


# pairs that become sparse


def test_pairs_are_dense_until_enough_is_known_then_sparse_for_ever(begun: Begun) -> None:
    world = begun()
    world.run(120, every=12)
    plan = world.plan
    assert plan.sparse_from is not None
    assert plan.activate_at + 8 * 12 < plan.sparse_from < plan.activate_at + 10 * 12
    pairs = world.status.measured.pairs
    writes = len(world.writes)
    assert f"({pairs} pairs measured, now one in 50)" in world.status.message
    world.run(6000, every=3000)
    assert world.status.measured.pairs >= pairs + 9
    assert len(world.writes) == writes, "written once more, and never again"
    controls = sum(arm_of(plan, at)[0] is Arm.CONTROL for at in range(plan.sparse_from + 12, world.iteration))
    assert 0.005 < controls / (world.iteration - plan.sparse_from) < 0.015, "a hundredth of what is saved"


def test_a_job_that_varies_much_stays_dense_up_to_its_limit(begun: Begun) -> None:
    world = begun()
    world.jitter = 0.04
    dense = 0
    for _ in range(20):  # one that varies so much may be taken back once for nothing
        world.run(60, every=60)
        assert world.plan.sparse_from is None, "they end by themselves"
        if "now one in 50" in world.status.message:
            break
        dense += world.status.progress.endswith("/32 pairs")
    assert "now one in 50" in world.status.message
    assert dense >= 5
    assert world.status.measured.pairs >= 30


@pytest.mark.slow
def test_the_figures_go_on_over_days_from_the_newest_blocks(begun: Begun) -> None:
    world = begun()
    world.run(120, every=12)
    first = world.status.measured.savings.mean
    world.iteration += 600 * 150
    world.settle()
    assert world.status.measured.pairs == MOST_BLOCKS // 2
    assert world.status.measured.savings.mean == pytest.approx(first, abs=0.01)


def test_an_agent_that_was_started_anew_takes_the_figures_along_until_eight_new_pairs(active: Any) -> None:
    active.run(120, every=24)
    old, rank = active.status.measured, active._rank
    since = active.iteration

    def forgetful(number: int) -> Any:
        told = rank(number)
        begun = (since - active.plan.activate_at) // 6
        return told.model_copy(update={"blocks": tuple(one for one in told.blocks if one.block > begun)})

    active._rank = forgetful
    active.run(600 * 6, every=1800)
    assert active.status.measured == old
    active.run(600 * 6, every=1800)
    assert 8 <= active.status.measured.pairs < old.pairs + 8


# plans that are taken back


def test_a_plan_that_is_slower_than_allowed_is_withdrawn_and_made_again_with_a_reserve(begun: Begun) -> None:
    world = begun(0.02)
    first = world.plan.hash
    world.run(60, every=12)
    assert [one.hash for one in world.status.withdrawn] == [first]
    assert world.status.withdrawn[0].reserve == pytest.approx(0.03, rel=0.2)
    (notice,) = world.notices
    assert notice.reason == "PlanWithdrawn"
    assert "iterations last 2." in notice.message
    assert "0.00% are allowed, and 0.5% as a margin" in notice.message
    assert world.plan.hash != first
    assert world.condition("Degraded").reason in ("PlanWithdrawn", "AsExpected")
    world.run(120, every=12)
    assert world.status.phase == "Active"
    assert world.condition("Degraded").status == "False"
    assert "with a reserve of" in world.condition("Planned").message
    assert len(world.status.withdrawn) == 1
    assert world.status.measured.slowdown.ci95_low < 0.005


def test_while_the_next_plan_is_computed_gpus_run_default_clocks_and_the_status_says_why(begun: Begun) -> None:
    world = begun(0.02)
    while not world.status.withdrawn:
        world.iteration += 6
        decision = world.decide()
        world._carry_out(decision)
    assert not world.plans
    assert decision.requeue_after_s is not None
    assert world.status.phase == "Profiling"
    assert "It is withdrawn, all GPUs run default clocks" in world.status.message
    decision = world.decide()
    assert decision.ask_planner.reserve == world.status.withdrawn[0].reserve
    assert next(one for one in decision.status.conditions if one.type == "Degraded").reason == "PlanWithdrawn"


@pytest.mark.slow
def test_after_three_plans_it_gives_up_until_the_spec_changes(begun: Begun) -> None:
    world = begun(0.02)
    for tried in (1, 2, 3):
        while len(world.status.withdrawn) < tried:
            world.run(12, every=12)
        world.excess = 0.02 + world.status.withdrawn[-1].reserve
    assert world.status.phase == "Refused"
    assert world.condition("Active").reason == "SlowerThanAllowed"
    assert "spec.maxSlowdownPercent" in world.status.message
    reserves = [one.reserve for one in world.status.withdrawn]
    assert reserves == sorted(set(reserves))
    assert [one.reason for one in world.notices] == ["PlanWithdrawn", "PlanWithdrawn", "SlowerThanAllowed"]
    world.run(24, every=12)
    assert not world.plans
    world.generation += 1
    world.settle()
    sent = [plan.hash for plan in world.writes if plan.activate_at is None]
    assert world.status.phase == "Planned"
    assert len(sent) == len(set(sent)), "none is sent twice"


def test_an_operator_killed_before_the_deletion_deletes_what_it_withdrew(begun: Begun) -> None:
    world = begun(0.02)
    while not (decision := world.decide()).status.withdrawn:
        world._carry_out(decision)
        world.iteration += 6
    world.status = decision.status
    withdrawn = world.plan.hash
    world.settle()
    assert world.plan is None or world.plan.hash != withdrawn
    assert len(world.status.withdrawn) == 1


def test_what_an_agent_is_surer_of_is_withdrawn_as_well(active: Any) -> None:
    before = active.plan.hash
    active.refusal = {3: "SlowPlan: iterations take 2.1 s with the plan and 2 s at default clocks"}
    active.iteration += 1
    while not active.status.withdrawn:
        active._carry_out(active.decide())
    assert "The agent of rank 3 (pod gpt3-worker-0) found: iterations take 2.1 s" in active.status.message
    assert not active.plans
    active.refusal = {}
    assert active.decide().ask_planner.reserve == 0.005
    assert active.status.withdrawn[0].hash == before


@pytest.mark.slow
def test_what_the_user_allows_is_no_reason_to_withdraw_and_is_measured_densely_anew(active: Any) -> None:
    active.run(120, every=24)
    assert active.plan.sparse_from is not None
    active.spec, active.generation = spec(maxSlowdownPercent=5), 2
    active.settle()
    assert active.plan.sparse_from is None
    assert active.plan.allowed_slowdown == 0.05
    active.run(96, every=24)
    assert active.status.measured.slowdown.mean > 0.02
    assert not active.status.withdrawn
