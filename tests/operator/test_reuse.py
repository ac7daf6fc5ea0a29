"""A run that finds the profile of an earlier one: checked at two clocks, then used, refreshed or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from joulepath_crds import EnergyPlanSpec, EnergyProfileSpec, Purpose, Reuse, SwitchingLag
from joulepath_operator.facts.observation import StoredProfile
from joulepath_operator.facts.request import Answer, PlanRequest, Request, SurveyRequest, SurveyResult

Change = Callable[[EnergyProfileSpec], EnergyProfileSpec]


@pytest.fixture
def again(active: Any) -> Callable[..., Any]:
    """A second run of a job, that finds a profile changed so. told: the planner's answer to the first survey, of
    `surveys`."""

    def make(change: Change = lambda spec: spec, told: Answer | None = None, clocks: int = 12) -> Any:
        world = active.copy()
        ((_, stored),) = world.profiles.items()
        world.profiles = {"earlier": StoredProfile("earlier", change(stored.spec), "uid-of-another-run", "1")}
        world.spec = EnergyPlanSpec.from_api({"job": {"name": "gpt3"}, "profiling": {"clocks": clocks}})
        world.restart_job()
        world.iteration, world.surveys, usual = 5, [], world.answer

        def answer(request: Request) -> Answer:
            if not isinstance(request, SurveyRequest):
                return usual(request)  # type: ignore[no-any-return]
            world.surveys.append(request)
            return told if told and request == world.surveys[0] else SurveyResult(0.004, ())

        world.answer = answer
        world.writes.clear()
        world.settle()
        return world

    return make


def scaled(spec: EnergyProfileSpec, factor: Callable[[int], float]) -> EnergyProfileSpec:
    """With seconds and joules by a factor for each clock."""
    stages = tuple(
        stage.model_copy(
            update={
                "kinds": tuple(
                    kind.model_copy(
                        update={
                            "points": tuple(
                                one.model_copy(
                                    update={
                                        "time_s": one.time_s * factor(one.clock_mhz),
                                        "energy_j": one.energy_j * factor(one.clock_mhz),
                                    }
                                )
                                for one in kind.points
                            )
                        }
                    )
                    for kind in stage.kinds
                )
            }
        )
        for stage in spec.stages
    )
    return spec.model_copy(update={"stages": stages})


def shaped(**topology: Any) -> Change:
    """Of another topology."""
    return lambda spec: spec.model_copy(update={"topology": spec.topology.model_copy(update=topology)})


def rounds(world: Any) -> list[Any]:
    """The JobPlans of those that ran."""
    return [one for one in world.writes if one.purpose is Purpose.SWEEP and one.activate_at is not None]


def blocks(world: Any) -> int:
    return sum(len(one.sweep.clocks_mhz) for one in rounds(world) if one.sweep)


def found(world: Any) -> EnergyProfileSpec:
    """The profile of this run."""
    spec: EnergyProfileSpec
    (spec,) = (one.spec for one in world.profiles.values() if one.job_uid == world.job.uid)
    return spec


@pytest.mark.parametrize("replicas", [1, 4])
def test_a_profile_of_any_number_of_replicas_is_checked_and_used(again: Callable[..., Any], replicas: int) -> None:
    world = again(shaped(data_parallel=replicas))
    assert "earlier, of an earlier run, is checked before it is used again" in world.status.message
    world.run(40)
    assert blocks(world) == 6
    assert [one.count for one in world.surveys] == [0], "its frontier was known, delays are learnt"
    assert world.plan.purpose == "Enforce"
    (condition,) = (one for one in world.status.conditions if one.type == "Profiled")
    assert condition.reason == "Reused"
    assert "EnergyProfile earlier, of an earlier run, is used again: at default clocks and at" in condition.message
    spec, old = found(world), world.profiles["earlier"].spec
    assert spec.topology == world.status.topology
    assert spec.origin is not None
    assert (spec.origin.profile, spec.origin.reuse) == ("earlier", Reuse.REUSED)
    assert [len(kind.points) for one in spec.stages for kind in one.kinds] == [
        len(kind.points) for one in old.stages for kind in one.kinds
    ]


def test_a_plan_is_made_for_lags_that_were_seen_more_often_then_than_now(again: Callable[..., Any]) -> None:
    often = SwitchingLag(up_median_s=0.02, up_p95_s=0.03, down_median_s=0.01, down_p95_s=0.02, samples=4000)
    world = again(lambda spec: spec.model_copy(update={"lag": often}))
    usual, lags = world.answer, []

    def answer(request: Request) -> Any:
        if isinstance(request, PlanRequest):
            lags.append(request.lag)
        return usual(request)

    world.answer = answer
    world.run(40)
    assert found(world).lag == often
    assert lags == [often]


def test_a_profile_that_tells_how_iterations_vary_is_checked_with_fewer_blocks(again: Callable[..., Any]) -> None:
    world = again(lambda spec: spec.model_copy(update={"iteration_time_noise_s": 0.01}))
    world.run(40)
    assert blocks(world) == 4
    assert found(world).iteration_time_noise_s == pytest.approx(0.01)


def test_one_that_has_drifted_is_refreshed_and_rounds_follow_where_it_is_not_sure(again: Callable[..., Any]) -> None:
    drifted = again(lambda spec: scaled(spec, lambda clock: 0.9))
    drifted.run(40)
    assert (blocks(drifted), [one.count for one in drifted.surveys]) == (6, [0])
    origin = found(drifted).origin
    assert origin is not None
    assert origin.reuse is Reuse.REFRESHED
    assert "work has changed by +11.1% in time and +11.1% in energy, by one factor" in origin.message

    def unstated(spec: EnergyProfileSpec) -> EnergyProfileSpec:
        return scaled(spec, lambda clock: 0.9).model_copy(update={"frontier_uncertainty": None})

    unknown = again(unstated, told=SurveyResult(0.02, (1275, 1125)), clocks=20)
    unknown.run(60)
    first, *more = unknown.surveys
    assert set(first.newest_mhz) == set(rounds(unknown)[0].sweep.clocks_mhz)
    assert len(first.profile.stages[0].kinds[0].points) > 3, "old points give the shape"
    assert more
    assert rounds(unknown)[1].sweep.clocks_mhz == (1275, 1125)
    assert rounds(unknown)[1].sweep.origin == rounds(unknown)[0].sweep.origin


def test_a_frontier_that_turns_out_less_known_than_it_was_is_told_as_such(again: Callable[..., Any]) -> None:
    for told, kept in ((0.02, 0.02), (0.006, 0.004)):
        world = again(lambda spec: spec.model_copy(update={"frontier_uncertainty": 0.004}), SurveyResult(told, ()))
        world.run(40)
        assert (found(world).frontier_uncertainty, len(rounds(world))) == (kept, 1)


def test_one_whose_shape_is_another_is_refused_and_what_was_measured_counts(again: Callable[..., Any]) -> None:
    world = again(lambda spec: scaled(spec, lambda clock: 0.85 if clock < 1200 else 1.0))
    world.run(140)
    check, anew = rounds(world)[:2]
    assert not set(check.sweep.clocks_mhz[1:-1]) - {0} & set(anew.sweep.clocks_mhz) - {0}
    assert anew.sweep.earlier.clocks_mhz == check.sweep.clocks_mhz
    assert anew.sweep.origin.reuse is Reuse.REFUSED
    spec = found(world)
    assert {point.clock_mhz for point in spec.stages[0].kinds[0].points} == {
        clock or 1410 for one in rounds(world) for clock in one.sweep.clocks_mhz
    }
    message = world.condition("Profiled").message
    assert world.condition("Profiled").reason == "Measured"
    assert "EnergyProfile earlier, of an earlier run, isn't used: at default clocks and at" in message
    assert "beside one factor for all clocks" in message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (shaped(gpu_model="Virtual H100"), "it was measured on Virtual H100, and this job runs on Virtual A100"),
        (lambda spec: spec.model_copy(update={"power_cap_w": 300.0}), "capped at 300 W, and this job's are at 400 W"),
        (lambda spec: spec.model_copy(update={"driver": "550.1"}), "with driver 550.1, and this job's GPUs have"),
    ],
)
def test_one_of_other_gpus_is_refused_at_once_with_both_values(
    again: Callable[..., Any], change: Change, says: str
) -> None:
    world = again(change)
    assert says in world.status.message
    assert len(world.plan.sweep.clocks_mhz) == 7, "a whole sweep"
    world.run(120)
    assert world.condition("Profiled").reason == "Measured"
    assert says in world.condition("Profiled").message


@pytest.mark.parametrize("change", [{"stages": 4}, {"microbatches": 16}, {"schedule": "GPipe"}, {"tensor_parallel": 2}])
def test_one_of_another_pipeline_is_none(again: Callable[..., Any], change: dict[str, Any]) -> None:
    world = again(shaped(**change))
    assert world.plan.sweep.origin is None
    assert "earlier" not in world.status.message


def test_one_that_is_deleted_while_it_is_checked_is_done_without(again: Callable[..., Any]) -> None:
    world = again()
    world.profiles.clear()
    world.run(140)
    assert len(found(world).stages[0].kinds[0].points) >= 5
    assert "it was deleted while it was checked" in world.condition("Profiled").message


def test_one_of_which_the_planner_makes_nothing_is_done_without(again: Callable[..., Any]) -> None:
    nothing = SurveyResult(inf, ())
    world = again(lambda spec: spec.model_copy(update={"frontier_uncertainty": None}), told=nothing, clocks=20)
    world.run(140)
    assert "isn't used: nothing can be planned on it." in world.condition("Profiled").message
    assert len(rounds(world)) == 3, "the check, all anew, and what switches cost"


def test_agents_that_forget_a_check_sweep_anew(again: Callable[..., Any]) -> None:
    world = again()
    world._swept = lambda: {0}
    world.run(60)
    del world._swept
    assert world.plan.sweep.origin is None
    world.run(120)
    assert world.condition("Profiled").reason == "Measured"


def test_observe_uses_one_as_it_is_and_none_of_other_gpus(again: Callable[..., Any]) -> None:
    observe = EnergyPlanSpec.from_api({"job": {"name": "gpt3"}, "mode": "Observe"})
    for change, reason in ((shaped(data_parallel=4), "Reused"), (shaped(gpu_model="Virtual H100"), "ObserveOnly")):
        world = again(change)
        world.spec, world.generation, world.plans = observe, 2, {}
        world.settle()
        assert world.condition("Profiled").reason == reason
        assert not any(clock for stage in world.plan.stages for clock in stage.clocks_mhz)


def test_observe_does_without_one_that_does_not_fit_the_job_and_says_so_until_its_spec_changes(
    again: Callable[..., Any],
) -> None:
    world = again(lambda spec: scaled(spec, lambda _: 1.05))
    world.spec, world.generation, world.plans = (
        EnergyPlanSpec.from_api({"job": {"name": "gpt3"}, "mode": "Observe"}),
        2,
        {},
    )
    world.settle()
    world.run(60)
    assert world.status.phase == "Active"
    assert world.status.profile is None
    assert world.status.setback is None
    assert world.condition("Profiled").reason == "ProfileMisfits"
    assert "EnergyProfile earlier" in world.condition("Profiled").message
    world.writes.clear()
    world.status = replace_nothing(world)
    world.settle()
    assert not world.writes
    world.profiles = {
        name: replace(one, spec=scaled(one.spec, lambda _: 1 / 1.05)) for name, one in world.profiles.items()
    }
    world.generation = 3
    world.settle()
    assert world.condition("Profiled").reason == "Reused"


def test_an_operator_that_restarts_during_a_check_changes_nothing(again: Callable[..., Any]) -> None:
    world = again(lambda spec: scaled(spec, lambda clock: 0.85 if clock < 1200 else 1.0))
    for _ in range(20):
        world.run(2, every=2)
        world.writes.clear()
        plans = dict(world.plans)
        world.status = replace_nothing(world)
        world.settle()
        assert not world.writes
        assert world.plans == plans


def replace_nothing(world: Any) -> Any:
    """The status as the cluster gives it back."""
    return type(world.status).from_api(world.status.to_api())


def test_the_own_job_s_profile_goes_first_then_one_of_as_many_replicas(again: Callable[..., Any]) -> None:
    world = again()
    ((_, stored),) = world.profiles.items()
    other = stored.spec.model_copy(update={"job": "another"})
    more = shaped(data_parallel=2)(stored.spec)
    world.profiles = {
        "a": replace(stored, name="a", spec=other),
        "b": replace(stored, name="b", spec=more),
        "c": stored,
    }
    world.profiles["c"] = replace(stored, name="c")
    world.restart_job("uid-three-000")
    world.iteration, world.plans = 5, {}
    world.settle()
    assert world.plan.sweep.origin.profile == "c"


def test_jobs_of_one_name_and_several_kinds_have_profiles_of_their_own(again: Callable[..., Any], active: Any) -> None:
    world, (mine,) = again(), active.profiles
    world.profiles = dict(active.profiles)
    of_kind = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "name": "gpt3"}
    world.spec, world.plans = EnergyPlanSpec.from_api({"job": of_kind}), {}
    world.run(120)
    assert len(world.profiles) == 2
    assert world.profiles[mine] == active.profiles[mine]
    assert found(world).origin is not None
