"""Instructions that are other than those of their kind, as FSDP makes them: found, and planned with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_bridge.lags import lags_or_assumed
from joulepath_bridge.pipeline import pipeline_of, profile_of
from joulepath_crds import Arm, Granularity, SwitchingLag
from joulepath_operator.facts.request import Delays, PlanRefusal, PlanRequest, PlanResult
from joulepath_operator.figures.order import executed
from joulepath_operator.figures.profile import build_profile
from joulepath_operator.figures.timing.delays import measure_delays, some_pipelines
from joulepath_operator.planning.child import learnt
from joulepath_operator.planning.compute import compute
from joulepath_planner import Instruction, Pipeline, fit, interleaved_1f1b, plan, simulate
from joulepath_rules import Applied
from simulated_job import SimulatedJob
from tests.examples import examples
from tests.planner.pipelines import gpt3, scaled

SWEPT_MHZ: Final = (1290, 1170, 1050, 960)
LINKS: Final = [link for stage in range(7) for link in ((stage, stage + 1, "F"), (stage + 1, stage, "B"))]
LAG: Final = SwitchingLag(up_median_s=0.004, up_p95_s=0.006, down_median_s=0.004, down_p95_s=0.006, samples=99)
REDUCTIONS_S: Final = {Instruction(stage, "B", 11): 0.02 + 0.04 * (3 * stage % 8) / 7 for stage in range(8)}
"""From 20 to 60 ms at the end of each stage's last backward."""
GATHERS_S: Final = {Instruction(stage, "F", 0): 0.015 + 0.005 * (stage % 3) for stage in range(8)}
Single = Mapping[Instruction, float]
NONE: Final[Single] = MappingProxyType({})


def truth(gap_s: Single = NONE, extra_s: Single = NONE) -> Pipeline:
    kinds = {(stage, kind): 0.001 for stage in range(8) for kind in "FB"}
    return replace(
        gpt3(),
        transfer_s=dict.fromkeys(LINKS, 0.002),
        overhead_s=kinds,
        tail_s=dict.fromkeys(range(8), 0.03),
        gap_s=gap_s,
        extra_s=extra_s,
    )


def small(gap_s: Single = NONE, extra_s: Single = NONE) -> Pipeline:
    of = scaled([0.9, 1.0, 0.8, 1.0], 8)
    links = {link: 0.001 for link in LINKS if max(link[:2]) < 4}
    kinds = dict.fromkeys(of.profile.points, 0.0005)
    return replace(of, transfer_s=links, overhead_s=kinds, gap_s=gap_s, extra_s=extra_s)


def request_of(pipeline: Pipeline) -> PlanRequest:
    """What the planner is asked for a job that has been profiled."""
    job = SimulatedJob(pipeline)
    job.run(40, lambda _: Applied(Arm.DEFAULT))
    for place, clock in enumerate(SWEPT_MHZ):
        held = Applied(Arm.SWEEP, place, "hash", clock, 8)
        job.run(8, lambda _, held=held: held)  # type: ignore[misc]
    job.run(4, lambda _: Applied(Arm.DEFAULT))
    gang = job.gang()
    topology = gang.topology()
    return learnt(
        PlanRequest(
            inputs="",
            profile=build_profile(gang, topology, {0, *SWEPT_MHZ}, Delays(), "job"),
            orders=tuple(tuple(one.label for one in executed(rank)) for rank in gang.pipeline()),
            control_time_s=gang.control_time_s,
            max_slowdown=0.0,
            granularity=Granularity.INSTRUCTION,
            lag=LAG,
            supported_clocks_mhz=gang.supported_clocks_mhz(),
            iterations=some_pipelines(gang, topology),
        )
    )


def by_kind(request: PlanRequest) -> PlanRequest:
    """The same where nothing is known of single instructions."""
    return replace(request, delays=replace(request.delays, gaps_s={}, extras_s={}, fixed_s={}))


def modelled_s(request: PlanRequest) -> float:
    """Of an iteration at default clocks."""
    delays = request.delays
    profile = fit(profile_of(request.profile, delays.fixed_s), request.supported_clocks_mhz).likely
    pipeline = pipeline_of(
        request.profile,
        request.orders,
        profile=profile,
        transfers_s=delays.transfers_s,
        overheads_s=delays.overheads_s,
        tails_s=delays.tails_s,
        gaps_s=delays.gaps_s,
        extras_s=delays.extras_s,
    )
    return simulate(pipeline).iteration_time_s


def error(request: PlanRequest) -> float:
    return modelled_s(request) / request.control_time_s - 1


def planned(request: PlanRequest) -> PlanResult:
    result = compute(request)
    assert isinstance(result, PlanResult), result
    return result


def true_outcome(pipeline: Pipeline, result: PlanResult) -> tuple[float, float]:
    """By how much the plan makes iterations longer, and what it saves."""
    of = {
        (stage.stage, label): clock or None
        for stage in result.stages
        for label, clock in zip(stage.order, stage.clocks_mhz, strict=True)
    }
    clocks = [[of[one.stage, str(one)] for one in order] for order in pipeline.schedule.orders]
    lags = lags_or_assumed(LAG, pipeline.profile.default_clock_mhz(0))
    default, seen = simulate(pipeline, None, lags), simulate(pipeline, clocks, lags)
    return seen.iteration_time_s / default.iteration_time_s - 1, 1 - seen.energy_j / default.energy_j


def test_a_reduction_at_the_end_of_the_last_backwards_is_found_and_planned_with() -> None:
    pipeline = truth(extra_s=REDUCTIONS_S)
    request = request_of(pipeline)
    found = {Instruction.parse(label): seconds for label, seconds in request.delays.extras_s.items()}
    assert found == pytest.approx(REDUCTIONS_S, abs=0.002)
    assert not request.delays.gaps_s

    smeared = by_kind(request)
    assert error(smeared) < -0.07
    refused = compute(smeared)
    assert isinstance(refused, PlanRefusal)
    assert refused.reason == "ModelMismatch"
    assert abs(error(request)) < 0.005

    late, saved = true_outcome(pipeline, planned(request))
    assert late < 0.002
    assert saved == pytest.approx(planned(request).predicted_savings, abs=0.005)
    # Were the other model believed, its plan would save half a point less.
    _, saved_by_kind = true_outcome(pipeline, planned(replace(smeared, control_time_s=modelled_s(smeared))))
    assert saved > saved_by_kind + 0.005


def test_what_the_first_forwards_gather_is_found_beside_it() -> None:
    singles = GATHERS_S | REDUCTIONS_S
    request = request_of(truth(extra_s=singles))
    assert {Instruction.parse(label) for label in request.delays.extras_s} == singles.keys()
    assert error(by_kind(request)) < -0.1
    assert abs(error(request)) < 0.005


def test_a_gap_that_ranks_wait_through_at_default_clocks_is_no_slack() -> None:
    """It shows on the last stage alone, whose backwards wait for nobody."""
    pipeline = truth(gap_s=dict.fromkeys(REDUCTIONS_S, 0.06))
    request = request_of(pipeline)
    assert {Instruction.parse(label) for label in request.delays.gaps_s} == REDUCTIONS_S.keys()
    assert error(by_kind(request)) < -0.015
    assert abs(error(request)) < 0.005
    late, _ = true_outcome(pipeline, planned(request))
    assert late < 0.002
    # A plan for what is seen alone uses up waits in which the other stages reduce.
    alone = {"7:B11": request.delays.gaps_s["7:B11"]}
    result = planned(replace(request, delays=replace(request.delays, gaps_s=alone)))
    assert true_outcome(pipeline, result)[0] > 0.004


def test_what_a_rank_reduces_before_its_other_chunk_is_found_on_all_ranks() -> None:
    """As torch does after the last backward of a chunk. It shows on the last rank, for which the others wait."""
    schedule = interleaved_1f1b(4, 4)
    gaps = {
        one: 0.05
        for order in schedule.orders
        for before, one in pairwise(order)
        if (before.kind, before.microbatch) == ("B", 3)
    }
    job = SimulatedJob(replace(small(), schedule=schedule, gap_s=gaps))
    job.run(20, lambda _: Applied(Arm.DEFAULT))
    gang = job.gang()
    found = {Instruction.parse(label): s for label, s in measure_delays(gang, gang.topology()).gaps_s.items()}
    assert found == pytest.approx(gaps, abs=0.002)


@pytest.mark.parametrize("noise", [0.0, 0.002, 0.01, 0.03])
@pytest.mark.parametrize("iterations", [14, 66])
def test_where_all_of_a_kind_are_alike_nothing_is_of_single_instructions(noise: float, iterations: int) -> None:
    job = SimulatedJob(truth(), time_noise=noise, seed=iterations)
    job.run(iterations, lambda _: Applied(Arm.DEFAULT))
    gang = job.gang()
    delays = measure_delays(gang, gang.topology())
    assert not any((delays.gaps_s, delays.extras_s, delays.fixed_s))


@pytest.mark.parametrize("seed", range(3))
def test_kernels_that_are_slow_now_and_then_are_not_taken_for_seconds_of_single_instructions(seed: int) -> None:
    """A timeline has begins and ends in the middle, which may be those of different iterations."""
    job = SimulatedJob(truth(), time_noise=0.01, slow=(0.02, 0.2), seed=seed)
    job.run(20, lambda _: Applied(Arm.DEFAULT))
    gang = job.gang()
    assert not measure_delays(gang, gang.topology()).extras_s


@pytest.mark.slow
def test_what_is_no_other_than_its_kind_changes_no_plan() -> None:
    pipeline = truth()
    every = [one for order in pipeline.schedule.orders for one in order]
    told = replace(
        pipeline,
        gap_s={one: pipeline.overhead(one.stage, one.kind) for one in every},
        extra_s=dict.fromkeys(every, 0.0),
    )
    assert plan(told, slowdown=0.01) == plan(pipeline, slowdown=0.01)


ONES: Final = st.sampled_from([one for order in small().schedule.orders for one in order[1:]])
SOME: Final = st.dictionaries(ONES, st.floats(0.02, 0.06), max_size=4)


@examples(12)
@given(gaps=SOME, extras=SOME, seed=st.integers(0, 99))
def test_with_gaps_and_extras_anywhere_the_model_takes_what_the_job_does(
    gaps: Single, extras: Single, seed: int
) -> None:
    pipeline = small(gaps, extras)
    job = SimulatedJob(pipeline, time_noise=0.005, seed=seed)
    job.run(20, lambda _: Applied(Arm.DEFAULT))
    gang = job.gang()
    delays = measure_delays(gang, gang.topology())
    assert {Instruction.parse(label): s for label, s in delays.extras_s.items()} == pytest.approx(extras, abs=0.003)
    modelled = replace(
        pipeline,
        transfer_s=delays.transfers_s,
        overhead_s=delays.overheads_s,
        tail_s=delays.tails_s,
        gap_s={Instruction.parse(label): seconds for label, seconds in delays.gaps_s.items()},
        extra_s={Instruction.parse(label): seconds for label, seconds in delays.extras_s.items()},
    )
    assert simulate(modelled).iteration_time_s == pytest.approx(gang.control_time_s, rel=0.01)
