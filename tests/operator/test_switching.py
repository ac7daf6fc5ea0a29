"""What switches of clock cost by themselves: tried in the job, planned with, and told."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from joulepath_crds import Arm, BlockReport, EnergyPlanSpec, Granularity, JobPlanSpec, Purpose, Sweep, SwitchingCost
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.facts.request import PlanRefusal, PlanRequest
from joulepath_operator.figures.switching import TRIAL_BLOCKS, neighbours_mhz, switching_cost, trial

NewWorld = Callable[..., Any]
NO_PLAN = PlanRefusal(Refusal.NOT_PLANNABLE, "not asked for here")


def tried(world: Any) -> list[JobPlanSpec]:
    """The rounds that tried it, as they were activated."""
    return [one for one in world.writes if one.sweep and one.sweep.to_and_fro_mhz and one.activate_at is not None]


def trained(new_world: NewWorld, pause_s: float, **spec: Any) -> Any:
    world = new_world(EnergyPlanSpec.from_api({"job": {"name": "gpt3"}, **spec}))
    world.pause_s = pause_s
    world.settle()
    world.run(240)
    assert world.status.phase == "Active", world.status.message
    return world


def test_switches_that_cost_nothing_leave_each_instruction_its_clock(new_world: NewWorld) -> None:
    world = trained(new_world, 0.0)
    (round_,) = tried(world)
    assert round_.sweep is not None
    assert len(round_.sweep.clocks_mhz) == TRIAL_BLOCKS
    assert world.status.plan.granularity is Granularity.INSTRUCTION
    assert world.status.plan.switch_s == 0
    assert "Switches of clock cost no time of their own that could be told" in world.condition("Planned").message


def test_a_plan_counts_with_what_switches_cost_has_fewer_of_them_and_says_why(new_world: NewWorld) -> None:
    free, dear = trained(new_world, 0.0), trained(new_world, 0.005)
    plan = dear.status.plan
    assert plan.switch_s == pytest.approx(0.005, rel=0.1)
    assert plan.switch_half_s < 0.001
    assert "A switch of clock holds up its GPU for" in dear.condition("Planned").message
    assert dear.status.measured.slowdown.mean < 0.003
    assert dear.status.measured.savings.mean > 0.05
    assert changes(dear) < changes(free)


def test_a_plan_that_does_not_know_what_switches_cost_is_withdrawn(new_world: NewWorld) -> None:
    world = new_world(EnergyPlanSpec.from_api({"job": {"name": "gpt3"}, "granularity": "instruction"}))
    world.pause_s = 0.005
    world.settle()
    world.run(240)
    assert world.status.withdrawn


def test_a_later_run_with_the_same_profile_does_not_try_it_again(new_world: NewWorld) -> None:
    world = trained(new_world, 0.005)
    world.restart_job()
    world.plans.clear()
    world.settle()
    world.run(240)
    assert world.status.phase == "Active"
    assert world.condition("Profiled").reason == "Reused"
    assert len(tried(world)) == 1
    assert world.status.plan.switch_s == pytest.approx(0.005, rel=0.1)


def changes(world: Any) -> int:
    """Of clock, in an iteration of the plan in force."""
    return sum(one != other for stage in world.plan.stages for one, other in pairwise(stage.clocks_mhz))


@pytest.mark.parametrize("asked", [{"granularity": "instruction"}, {"profiling": {"maxEnergyJoules": 1.0}}])
def test_it_is_not_tried_where_granularity_is_given_or_joules_do_not_allow_it(
    new_world: NewWorld, asked: dict[str, Any]
) -> None:
    assert tried(trained(new_world, 0.0, **asked)) == []


def test_it_is_not_tried_where_lags_are_unknown_or_too_long_for_single_instructions(new_world: NewWorld) -> None:
    for lag in (None, new_world().lag.model_copy(update={"up_p95_s": 0.2})):
        world = new_world()
        world.lag = lag
        compute = world.answer
        world.answer = lambda asked, compute=compute: NO_PLAN if isinstance(asked, PlanRequest) else compute(asked)
        world.settle()
        world.run(120)
        assert world.profiles
        assert tried(world) == []


def test_an_agent_that_only_holds_the_first_clock_of_each_block_says_nothing_of_a_cost(new_world: NewWorld) -> None:
    """It would be none, and sure."""
    plan, ranks = told(new_world(), lambda block, switches: 3.0 + block % 2 * 1e-4, knows=False)
    assert switching_cost(plan, ranks) is None


def told(
    world: Any, time_s: Callable[[int, bool], float], without: tuple[int, ...] = (), *, knows: bool = True
) -> tuple[JobPlanSpec, Any]:
    """A round whose blocks took so long, by their index and whether they switch, by agents that know how to."""
    sweep = trial(Sweep(clocks_mhz=(0,), iterations_per_block=4), (1395, 1380), "seed")
    plan = JobPlanSpec(
        energy_plan="plan", job="job", job_uid="uid", purpose=Purpose.SWEEP, hash="hash", default_clock_mhz=1410,
        sweep=sweep, activate_at=10,
    )  # fmt: skip
    blocks = tuple(
        BlockReport(
            hash="hash", block=block, arm=Arm.SWEEP, iterations=3, iteration_time_s=time_s(block, two[0] != two[1]),
            energy_per_iteration_j=100.0 + 5 * (two[0] != two[1]), switched=knows and two[0] != two[1],
        )
        for block, two in enumerate(zip(sweep.clocks_mhz, sweep.to_and_fro_mhz, strict=True))
        if block not in without
    )  # fmt: skip
    world.settle()
    return plan, [rank.model_copy(update={"blocks": blocks}) for node in world.nodes() for rank in node.report.ranks]


def test_each_pair_of_blocks_has_one_that_switches_and_both_clocks_are_alike_in_both_sorts() -> None:
    sweep = trial(Sweep(clocks_mhz=(0, 900), iterations_per_block=4), (1395, 1380), "seed")
    blocks = list(zip(sweep.clocks_mhz, sweep.to_and_fro_mhz, strict=True))
    assert len(blocks) == TRIAL_BLOCKS
    for first, second in zip(blocks[::2], blocks[1::2], strict=True):
        assert {first[0] == first[1], second[0] == second[1]} == {True, False}
    for switches in (True, False):
        firsts = [one for one, other in blocks if (one != other) is switches]
        assert sorted(firsts) == [1380, 1380, 1395, 1395]
    assert trial(Sweep(clocks_mhz=(0,), iterations_per_block=4), (1395, 1380), "seed").clocks_mhz == sweep.clocks_mhz


def test_the_cost_is_the_difference_of_both_sorts_with_an_interval_of_their_scatter(new_world: NewWorld) -> None:
    noise = (0.0, 0.01, -0.01, 0.004, 0.0, -0.006, 0.008, -0.003)
    plan, ranks = told(new_world(), lambda block, switches: 3.0 + 0.1 * switches + noise[block])
    cost = switching_cost(plan, ranks)
    assert isinstance(cost, SwitchingCost)
    assert cost.clocks_mhz == (1395, 1380)
    assert abs(cost.longer_s - 0.1) <= cost.longer_half_s < 0.05
    assert cost.more_j == pytest.approx(8 * 5)


def test_one_block_may_be_lost_and_of_fewer_nothing_is_told(new_world: NewWorld) -> None:
    for without, is_told in ((), True), ((0,), True), ((0, 1), False):
        plan, ranks = told(new_world(), lambda block, switches: 3.0 + 0.1 * switches, without)
        assert (switching_cost(plan, ranks) is not None) is is_told


def test_clocks_that_may_not_be_held_are_not_tried() -> None:
    assert neighbours_mhz((1410, 1395, 1380, 1365), 1400, 900) == (1395, 1380)
    assert neighbours_mhz((1410, 1395, 1380), 1410, 1390) is None
