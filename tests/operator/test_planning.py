"""The planner through its adapter."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from math import inf
from typing import Any

import pytest

from joulepath_bridge.lags import lags_or_assumed
from joulepath_bridge.pipeline import pipeline_of, profile_of
from joulepath_crds import FrontierPoint, Granularity, KindProfile, ProfilePoint, StageProfile, SwitchingLag
from joulepath_operator.facts.request import (
    Answer,
    FrontierRequest,
    FrontierResult,
    PlanRefusal,
    PlanRequest,
    PlanResult,
    Request,
)
from joulepath_operator.planning.child import answer, learnt
from joulepath_operator.planning.compute import compute
from joulepath_operator.planning.frontier import outline
from joulepath_operator.planning.pool import PlannerLimits, PlannerPool
from joulepath_planner import Pipeline, Profile, fit, simulate

NewWorld = Callable[..., Any]


@pytest.fixture(scope="module")
def request_for(new_world: NewWorld) -> PlanRequest:
    world = new_world()
    world.settle()
    while True:
        world.iteration += 1
        decision = world.decide()
        while (asked := decision.ask_planner) is not None:
            if isinstance(asked, PlanRequest):
                return learnt(asked)
            decision = world.decide(asked, world.answer(asked))
        world._carry_out(decision)


@pytest.fixture(scope="module")
def result(request_for: PlanRequest, new_world: NewWorld) -> PlanResult:
    """What the planner answers."""
    answer = compute(request_for)
    assert isinstance(answer, PlanResult)
    return answer


def test_the_figures_of_a_plan_are_in_order(request_for: PlanRequest, result: PlanResult) -> None:
    assert result.lower_bound_j <= result.energy_j < result.baseline_j
    assert 0 < result.predicted_savings <= result.bound_savings
    assert result.iteration_time_s <= result.t_min_s * 1.001
    assert result.plan_time_s / result.control_time_s == pytest.approx(result.iteration_time_s / result.t_min_s)
    assert [stage.stage for stage in result.stages] == list(range(8))
    for stage, order in zip(result.stages, request_for.orders, strict=True):
        assert [f"{stage.stage}:{label}" for label in stage.order] == list(order)
        assert set(stage.clocks_mhz) <= {0, *request_for.supported_clocks_mhz} - {1410}


@pytest.mark.slow
def test_replicas_multiply_joules_and_tensor_peers_do_not_change_savings(
    request_for: PlanRequest, result: PlanResult
) -> None:
    topology = request_for.profile.topology.model_copy(update={"data_parallel": 2, "tensor_parallel": 4})
    several = compute(replace(request_for, profile=request_for.profile.model_copy(update={"topology": topology})))
    assert isinstance(several, PlanResult)
    assert several.baseline_j == pytest.approx(8 * result.baseline_j)
    assert several.lower_bound_j == pytest.approx(8 * result.lower_bound_j)
    assert several.predicted_savings == pytest.approx(result.predicted_savings, abs=0.002)


def test_a_model_that_does_not_fit_the_job_is_refused_with_both_numbers(
    request_for: PlanRequest, result: PlanResult
) -> None:
    refusal = compute(replace(request_for, control_time_s=request_for.control_time_s * 1.02))
    assert isinstance(refusal, PlanRefusal)
    assert refusal.reason == "ModelMismatch"
    assert f"{request_for.control_time_s * 1.02:.4f} s" in refusal.message
    assert f"{result.t_min_s:.4f} s" in refusal.message


def noisy(request: PlanRequest, noise: float) -> PlanRequest:
    """The same job, its iterations varying by so much."""
    update = {"iteration_time_noise_s": noise * request.control_time_s}
    return replace(request, profile=request.profile.model_copy(update=update))


def measured(request: PlanRequest, otherwise: Callable[[ProfilePoint], ProfilePoint]) -> PlanRequest:
    """The same job, each point of its profile measured otherwise."""

    def kinds(stage: StageProfile) -> tuple[KindProfile, ...]:
        return tuple(kind.model_copy(update={"points": tuple(map(otherwise, kind.points))}) for kind in stage.kinds)

    stages = tuple(stage.model_copy(update={"kinds": kinds(stage)}) for stage in request.profile.stages)
    return replace(request, profile=request.profile.model_copy(update={"stages": stages}))


def pipeline_for(request: PlanRequest, profile: Profile) -> Pipeline:
    """The job's pipeline on these points."""
    return pipeline_of(
        request.profile,
        request.orders,
        profile=profile,
        transfers_s=request.delays.transfers_s,
        overheads_s=request.delays.overheads_s,
        tails_s=request.delays.tails_s,
    )


@pytest.mark.slow
def test_what_lies_within_the_noise_of_the_job_is_no_mismatch(request_for: PlanRequest) -> None:
    def off_by(share: float, noise: float) -> PlanResult | PlanRefusal:
        return compute(replace(noisy(request_for, noise), control_time_s=request_for.control_time_s * (1 + share)))

    assert isinstance(off_by(0.02, 0.012), PlanResult)
    assert isinstance(off_by(0.02, 0.005), PlanRefusal)
    assert isinstance(off_by(0.04, 0.5), PlanRefusal), "noise excuses only so much"


@pytest.mark.slow
def test_a_plan_for_a_job_of_noisy_iterations_stands_as_much_more_noise(
    request_for: PlanRequest, result: PlanResult
) -> None:
    pipeline = pipeline_for(request_for, fit(profile_of(request_for.profile), request_for.supported_clocks_mhz).likely)
    slower = {
        key: (points[0], *(replace(point, time_s=1.01 * point.time_s) for point in points[1:]))
        for key, points in pipeline.profile.points.items()
    }
    disturbed = replace(pipeline, profile=replace(pipeline.profile, points=slower))

    def lateness(made: PlanResult) -> float:
        """Of the iteration, where each slowed instruction takes 1% longer than measured."""
        clocks = [[clock or None for clock in stage.clocks_mhz] for stage in made.stages]
        lags = lags_or_assumed(request_for.lag, request_for.profile.default_clock_mhz)
        return simulate(disturbed, clocks, lags).iteration_time_s / made.t_min_s - 1

    calm, stormy = (compute(noisy(request_for, noise)) for noise in (0.01, 0.02))
    assert isinstance(stormy, PlanResult)
    assert calm == result
    assert lateness(result) > 0.003
    assert lateness(stormy) < 0.001
    assert result.predicted_savings > stormy.predicted_savings > 0.1


def test_a_profile_that_cannot_be_planned_on_is_refused_in_a_sentence(request_for: PlanRequest) -> None:
    stages = request_for.profile.stages
    broken = request_for.profile.model_copy(
        update={"stages": (stages[0].model_copy(update={"kinds": stages[0].kinds[:1]}), *stages[1:])}
    )
    refusal = compute(replace(request_for, profile=broken))
    assert isinstance(refusal, PlanRefusal)
    assert refusal.reason == "NotPlannable"
    assert "stage 0" in refusal.message


@pytest.mark.slow
def test_a_clock_that_seemed_fast_by_luck_makes_no_plan_late(request_for: PlanRequest, result: PlanResult) -> None:
    """One clock below the default one was measured 5% too fast in every stage: taken as it is, it costs no time."""
    lucky = request_for.profile.stages[0].kinds[0].points[2].clock_mhz

    def faster(point: ProfilePoint) -> ProfilePoint:
        return point.model_copy(update={"time_s": 0.95 * point.time_s}) if point.clock_mhz == lucky else point

    made = compute(measured(request_for, faster))
    assert isinstance(made, PlanResult)
    durations = {
        (stage.stage, label[0], clock): seconds
        for stage in result.stages
        for label, clock, seconds in zip(stage.order, stage.clocks_mhz, stage.durations_s, strict=True)
    }
    for stage in made.stages:
        for label, clock, seconds in zip(stage.order, stage.clocks_mhz, stage.durations_s, strict=True):
            if clock == lucky and (true := durations.get((stage.stage, label[0], clock))):
                assert seconds > 0.98 * true
    assert made.predicted_savings == pytest.approx(result.predicted_savings, abs=0.02)


@pytest.mark.slow
def test_gpus_whose_default_clock_is_on_no_curve_are_planned_by_what_was_measured(request_for: PlanRequest) -> None:
    """Throttled by 6% at the default clock in all stages: the curves take that for outliers, the job is as slow."""
    default = request_for.profile.topology.default_clock_mhz

    def slower(point: ProfilePoint) -> ProfilePoint:
        update = {"time_s": 1.06 * point.time_s, "energy_j": 1.06 * point.energy_j}
        return point.model_copy(update=update) if point.clock_mhz == default else point

    throttled = measured(request_for, slower)
    seen_s = simulate(pipeline_for(throttled, profile_of(throttled.profile))).iteration_time_s
    made = compute(replace(throttled, control_time_s=seen_s))
    assert isinstance(made, PlanResult)
    assert made.predicted_savings > 0.15


@pytest.mark.slow
@pytest.mark.parametrize("granularity", [Granularity.PHASE, Granularity.KIND, Granularity.RANK])
def test_a_granularity_that_is_asked_for_is_the_finest_taken(
    request_for: PlanRequest, granularity: Granularity
) -> None:
    result = compute(replace(request_for, granularity=granularity))
    assert isinstance(result, PlanResult)
    assert result.granularity in (granularity, Granularity.RANK)


@pytest.mark.slow
def test_a_long_lag_makes_auto_coarser(request_for: PlanRequest) -> None:
    slow = SwitchingLag(up_median_s=0.1, up_p95_s=0.1, down_median_s=0.1, down_p95_s=0.1, samples=9)
    result = compute(replace(request_for, lag=slow))
    assert isinstance(result, PlanResult)
    assert result.granularity is not Granularity.INSTRUCTION
    assert result.iteration_time_s <= result.t_min_s * 1.001


def ask(request: Request, *, command: tuple[str, ...] | None = None) -> Answer:
    seconds: list[float] = []
    options: dict[str, Any] = {} if command is None else {"command": command, "limits": PlannerLimits(timeout_s=0.2)}
    answer = asyncio.run(PlannerPool(observe=seconds.append, **options).plan(request))
    assert len(seconds) == 1
    return answer


def test_a_process_of_its_own_answers_the_same(request_for: PlanRequest, result: PlanResult) -> None:
    assert ask(request_for) == result


def test_a_planner_that_never_ends_is_ended(request_for: PlanRequest) -> None:
    refusal = ask(request_for, command=("sleep", "3600"))
    assert isinstance(refusal, PlanRefusal)
    assert refusal.reason == "PlannerTimeout"
    assert "0.2 s" in refusal.message


def test_a_planner_that_dies_is_told(request_for: PlanRequest) -> None:
    refusal = ask(request_for, command=("sh", "-c", "cat >/dev/null; kill -9 $$"))
    assert isinstance(refusal, PlanRefusal)
    assert refusal.reason == "PlannerDied"
    assert "-9" in refusal.message


@pytest.mark.slow
def test_a_profile_of_absurd_figures_is_refused_whatever_a_library_prints(request_for: PlanRequest) -> None:
    stages = request_for.profile.stages
    kind = stages[0].kinds[0]
    points = tuple(point.model_copy(update={"time_s": 1e308}) for point in kind.points)
    odd = kind.model_copy(update={"points": points})
    stage = stages[0].model_copy(update={"kinds": (odd, *stages[0].kinds[1:])})
    profile = request_for.profile.model_copy(update={"stages": (stage, *stages[1:])})
    refusal = ask(replace(request_for, profile=profile))
    assert isinstance(refusal, PlanRefusal)
    assert refusal.reason == "NotPlannable"
    assert "seconds and joules" in refusal.message


def test_an_input_gradient_of_no_input_which_takes_no_time_is_planned_around(
    request_for: PlanRequest, result: PlanResult
) -> None:
    """As the first stage has it under the schedules that split backwards: its whole backward is one for weights."""
    first, *others = request_for.profile.stages
    (forward,) = (kind for kind in first.kinds if kind.kind == "F")
    (backward,) = (kind for kind in first.kinds if kind.kind == "B")
    nothing = tuple(
        ProfilePoint(
            clock_mhz=one.clock_mhz, time_s=1e-9, energy_j=3e-7, energy_standard_error_j=3e-7, samples=one.samples
        )
        for one in backward.points
    )
    kinds = (
        forward,
        KindProfile(kind="I", points=nothing),
        KindProfile(kind="W", points=backward.points),
    )
    stages = (first.model_copy(update={"kinds": kinds}), *others)
    order = " ".join(request_for.orders[0])
    order = re.sub(r"0:B(\d+)", r"0:I\1 0:W\1", order)
    split = compute(
        replace(
            request_for,
            profile=request_for.profile.model_copy(update={"stages": stages}),
            orders=(tuple(order.split()), *request_for.orders[1:]),
        )
    )
    assert isinstance(split, PlanResult)
    assert split.predicted_savings == pytest.approx(result.predicted_savings, abs=0.005)
    assert len(split.stages[0].order) == len(order.split())


def test_a_plan_comes_without_its_frontier_which_is_asked_for_by_itself(
    request_for: PlanRequest, result: PlanResult
) -> None:
    assert result.frontier == ()
    found = ask(FrontierRequest("frontier", request_for))
    assert isinstance(found, FrontierResult)
    assert 5 <= len(found.points) <= 33
    assert found.points[0].iteration_time_s == pytest.approx(result.t_min_s)


def test_of_a_frontier_there_are_as_many_points_as_there_is_time_for(request_for: PlanRequest) -> None:
    def found(budget_s: float) -> int:
        seconds = count(step=3)
        return len(points(outline(FrontierRequest("frontier", request_for), budget_s, lambda: next(seconds))))

    counts = {budget_s: found(budget_s) for budget_s in (10, 30, 60, 1000, inf)}
    assert counts == {10: 3, 30: 9, 60: 17, 1000: 33, inf: 33}, "the first three take three seconds"


def test_what_learning_the_delays_took_is_no_time_for_a_frontier(request_for: PlanRequest) -> None:
    request, budget_s = FrontierRequest("frontier", request_for), 40
    alone, after_learning = count(step=3), count(step=3)
    assert len(points(outline(request, budget_s, lambda: next(alone)))) == 17
    assert len(points(answer(request, budget_s, lambda: next(after_learning)))) == 9


def points(found: Answer) -> tuple[FrontierPoint, ...]:
    assert isinstance(found, FrontierResult)
    return found.points


def test_a_planner_that_needs_more_memory_than_it_may_have_says_so_and_is_alone_in_that(
    request_for: PlanRequest,
) -> None:
    greedy = (
        "import sys; from joulepath_operator.planning import child; "
        "child.answer = lambda *asked: bytearray(2**30); child._main(int(sys.argv[1]))"
    )
    limits = PlannerLimits(memory=512 << 20, timeout_s=600)
    refusal = asyncio.run(PlannerPool(limits, command=(sys.executable, "-c", greedy)).plan(request_for))
    assert isinstance(refusal, PlanRefusal)
    assert refusal.reason == "PlannerMemory"
    assert "512 MiB" in refusal.message
    assert refusal.reason.final, "it is remembered: the same would need as much again"


def test_a_plan_is_made_within_the_memory_that_the_chart_s_default_leaves(
    request_for: PlanRequest, result: PlanResult
) -> None:
    limits = PlannerLimits.within(2 << 30, workers=2, timeout_s=600)
    assert asyncio.run(PlannerPool(limits).plan(request_for)) == result


@pytest.mark.parametrize(
    ("container", "workers", "each"), [(0, 2, 0), (2048, 2, 704), (768, 1, 336), (256, 1, 112), (65536, 2, 28480)]
)
def test_planners_share_what_the_operator_leaves_of_its_container_s_memory(
    container: int, workers: int, each: int
) -> None:
    limits = PlannerLimits.within(container << 20, workers=2, timeout_s=60)
    assert limits == PlannerLimits(workers, 60, each << 20)


def test_operator_and_planners_leave_an_eighth_of_the_container_s_memory() -> None:
    for container in (1 << 30, 2 << 30, 3 << 30):
        limits = PlannerLimits.within(container, workers=2, timeout_s=60)
        assert (384 << 20) + limits.workers * limits.memory <= container - container // 8


def test_a_block_in_which_something_else_ran_is_left_out_and_told(request_for: PlanRequest, result: PlanResult) -> None:
    """One clock of one kind of one stage took a thousand times as long: no curve goes through that."""
    stages = request_for.profile.stages
    kind = stages[3].kinds[1]
    clock = kind.points[1].clock_mhz
    odd = kind.points[1].model_copy(update={"time_s": 1e4 * kind.points[1].time_s})
    kinds = (stages[3].kinds[0], kind.model_copy(update={"points": (kind.points[0], odd, *kind.points[2:])}))
    spoiled = (*stages[:3], stages[3].model_copy(update={"kinds": kinds}), *stages[4:])
    made = compute(replace(request_for, profile=request_for.profile.model_copy(update={"stages": spoiled})))
    assert isinstance(made, PlanResult)
    assert made.predicted_savings == pytest.approx(result.predicted_savings, abs=0.01)
    assert made.remarks == (
        f"Left out, as seconds or watts there are beyond what a clock explains: stage 3 {kind.kind} at {clock} MHz.",
    )
    assert result.remarks == ()
