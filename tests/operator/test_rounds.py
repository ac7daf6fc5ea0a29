"""A sweep goes on in rounds until the frontier is known, within what the user allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from joulepath_crds import EnergyPlanSpec, JobPlanSpec, Purpose
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.facts.request import Answer, PlanRefusal, Request, SurveyRequest, SurveyResult
from joulepath_operator.planning.child import learnt
from joulepath_operator.planning.surveying import look

NewWorld = Callable[..., Any]


@pytest.fixture
def surveyed(new_world: NewWorld) -> Callable[..., Any]:
    """A world in which surveys are answered like this, one after the other, the last one ever after."""

    def make(*answers: SurveyResult | PlanRefusal, **profiling: Any) -> Any:
        world = new_world(
            EnergyPlanSpec.from_api({"job": {"name": "gpt3"}, "granularity": "phase", "profiling": profiling})
        )
        left, plan = list(answers), world.answer

        def answer(request: Request) -> Answer:
            if not isinstance(request, SurveyRequest):
                return plan(request)  # type: ignore[no-any-return]
            world.surveys.append(request)
            return left.pop(0) if len(left) > 1 else left[0]

        world.answer, world.surveys = answer, []
        return world

    return make


def told(uncertainty: float, *clocks: int) -> SurveyResult:
    return SurveyResult(uncertainty, clocks)


def sweeps(world: Any) -> list[JobPlanSpec]:
    """The rounds that ran."""
    return [one for one in world.writes if one.purpose is Purpose.SWEEP and one.activate_at is not None]


def test_rounds_follow_until_the_frontier_is_known(surveyed: Callable[..., Any]) -> None:
    world = surveyed(told(inf, 1350, 1200), told(0.02, 1275), told(0.008, 1140))
    world.settle()
    world.run(90)
    rounds = [one.sweep.clocks_mhz for one in sweeps(world) if one.sweep]
    assert [len(one) for one in rounds] == [7, 2, 1]
    assert rounds[1:] == [(1350, 1200), (1275,)]
    (profile,) = world.profiles.values()
    assert profile.spec.frontier_uncertainty == 0.008
    assert len(profile.spec.stages[0].kinds[0].points) == 7
    last = sweeps(world)[-1].sweep
    assert last is not None
    assert last.earlier is not None
    assert last.earlier.clocks_mhz == (*rounds[0], *rounds[1])
    assert last.earlier.iterations == 9 * 4


def test_a_survey_is_told_what_is_new_and_asks_for_clocks_that_nobody_measured(surveyed: Callable[..., Any]) -> None:
    world = surveyed(told(inf, 1350, 1200), told(0.001))
    world.settle()
    world.run(70)
    first, second = world.surveys[0], world.surveys[-1]
    assert first.newest_mhz == ()
    assert second.newest_mhz == (1350, 1200)
    measured = {point.clock_mhz for point in second.profile.stages[0].kinds[0].points}
    assert {1350, 1200} <= measured
    assert not measured & set(second.candidates_mhz)
    assert min(measured) < min(second.candidates_mhz)
    assert max(second.candidates_mhz) < max(measured)


def test_no_more_clocks_than_the_user_allows_are_measured(surveyed: Callable[..., Any]) -> None:
    world = surveyed(told(inf, 1350, 1200, 1275), told(0.5, 1140, 1185), clocks=6)
    world.settle()
    world.run(90)
    assert [one.count for one in world.surveys] == [2, 0]
    assert world.surveys[-1].candidates_mhz == ()
    assert world.profiles, "a further round would be over the limit: only what is known is asked for"


def test_no_round_begins_that_would_take_more_joules_than_allowed(surveyed: Callable[..., Any]) -> None:
    world = surveyed(told(0.001))
    world.settle()
    world.run(60)
    (profile,) = world.profiles.values()
    for blocks, rounds in ((7.5, 1), (8.5, 2)):
        joules = blocks * 4 * profile.spec.energy_per_iteration_j
        bounded = surveyed(told(inf, 1350), told(0.5, 1140), maxEnergyJoules=joules)
        bounded.settle()
        bounded.run(90)
        assert len(sweeps(bounded)) == rounds


def test_what_a_lost_sweep_took_counts_towards_the_joules_of_the_next_one(surveyed: Callable[..., Any]) -> None:
    world = surveyed(told(0.001))
    world.settle()
    world.run(60)
    (profile,) = world.profiles.values()
    for blocks, rounds in ((14.5, 2), (15.5, 3)):
        joules = blocks * 4 * profile.spec.energy_per_iteration_j
        bounded = surveyed(told(inf, 1350), told(0.5, 1140), maxEnergyJoules=joules)
        measured, bounded._swept = bounded._swept, lambda: {0}
        bounded.settle()
        first = bounded.plan.hash
        while bounded.plan.hash == first:
            bounded.run(1, every=1)
        bounded._swept = measured
        bounded.run(120)
        assert len(sweeps(bounded)) == rounds
        assert bounded.surveys[0].newest_mhz == (), "nothing of a lost sweep is known before"


def test_no_clock_is_measured_at_which_an_iteration_could_last_longer_than_allowed(
    surveyed: Callable[..., Any],
) -> None:
    world = surveyed(told(0.001), maxSlowdownPercent=10)
    world.settle()
    world.run(60)
    (sweep,) = sweeps(world)
    assert sweep.sweep is not None
    assert min(clock for clock in sweep.sweep.clocks_mhz if clock) >= 1410 / 1.1


def test_a_sweep_begins_anew_without_clocks_that_profiling_may_hold_no_more(surveyed: Callable[..., Any]) -> None:
    world = surveyed(told(0.001))
    world.settle()
    world.run(4, every=4)
    before = world.plan
    assert before.activate_at is not None
    assert min(clock for clock in before.sweep.clocks_mhz if clock) < 1410 / 1.1
    profiling = {"maxSlowdownPercent": 10}
    world.spec = EnergyPlanSpec.from_api({"job": {"name": "gpt3"}, "granularity": "phase", "profiling": profiling})
    world.generation = 2
    world.settle()
    assert min(clock for clock in world.plan.sweep.clocks_mhz if clock) >= 1410 / 1.1
    assert world.plan.sweep.earlier.iterations > 0, "what ran before counts"
    begun = world.plan.sweep
    world.run(60)
    assert [one.sweep for one in sweeps(world)] == [before.sweep, begun]
    (profile,) = world.profiles.values()
    assert min(point.clock_mhz for point in profile.spec.stages[0].kinds[0].points) >= 1410 / 1.1


@pytest.mark.parametrize("why", [Refusal.PLANNER_TIMEOUT, Refusal.NOT_PLANNABLE])
def test_a_survey_that_fails_leaves_what_is_measured(surveyed: Callable[..., Any], why: Refusal) -> None:
    world = surveyed(PlanRefusal(why, "It failed."))
    world.settle()
    world.run(60)
    assert len(sweeps(world)) == 1
    (profile,) = world.profiles.values()
    assert profile.spec.frontier_uncertainty is None
    assert len(profile.spec.transfers) == 14, "its plan has learnt the delays"
    assert all(stage.tail_s for stage in profile.spec.stages)
    assert world.plan.purpose == "Enforce"
    assert (world.plans_computed, len(world.writes)) == (1, 4), "it is told with the plan, and nothing is planned anew"


def test_agents_that_were_started_anew_between_two_rounds_measure_all_once_more(surveyed: Callable[..., Any]) -> None:
    world = surveyed(told(inf, 1350, 1200), told(0.001))
    world.settle()
    while not (world.plan.sweep and world.plan.sweep.earlier):
        world.run(1, every=1)
    world._swept = lambda: set()
    world.run(30)
    del world._swept
    assert world.plan.sweep.earlier.clocks_mhz == ()
    world.run(90)
    assert world.profiles


def test_a_clock_that_an_agent_has_forgotten_is_measured_once_more_and_no_oftener(surveyed: Callable[..., Any]) -> None:
    """Of an agent that was started anew when there were rounds enough to go on without; else the lowest clock of its
    stage would be missing for good, and all that a plan could have saved there."""
    for learns in (True, False):
        world = surveyed(told(inf, 1350, 1200, 1275), told(0.001))
        world.settle()
        while not (world.plan.sweep and world.plan.sweep.earlier):
            world.run(1, every=1)
        lowest = min(filter(None, world.plan.sweep.earlier.clocks_mhz))
        known = world._swept

        def swept(known: Any = known, world: Any = world, learns: bool = learns, lowest: int = lowest) -> set[int]:
            sweep = world.plan.sweep if world.plan else None
            again = sweep is not None and lowest in (*sweep.clocks_mhz, *sweep.earlier.clocks_mhz[7:])
            found: set[int] = known() - (set() if learns and again else {lowest})
            return found

        world._swept = swept
        world.run(90)
        rounds = [one.sweep.clocks_mhz for one in sweeps(world) if one.sweep]
        assert rounds[1:] == [(1350, 1200, 1275), (lowest,)]
        (profile,) = world.profiles.values()
        points = {point.clock_mhz for point in profile.spec.stages[0].kinds[0].points}
        assert (lowest in points) == learns


def test_of_what_can_not_be_planned_on_a_survey_knows_nothing_but_the_delays(surveyed: Callable[..., Any]) -> None:
    world = surveyed(told(0.001))
    world.settle()
    world.run(60)
    request = learnt(world.surveys[0])
    found = look(
        replace(request, profile=request.profile.model_copy(update={"blocking_power": ()}), orders=(("0:F0",),))
    )
    assert (found.uncertainty, found.tells_most_mhz) == (inf, ())
    assert found.delays.transfers_s
