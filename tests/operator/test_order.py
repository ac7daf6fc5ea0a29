"""Ranks that run several stages: from what their agents report to a plan by stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import joulepath_planner as planner
from joulepath_crds import (
    Coordinates,
    EnergyPlanSpec,
    GpuReport,
    Granularity,
    InstructionMeasurement,
    InstructionTime,
    RankReport,
    Sweep,
    SwitchingLag,
    WaitMeasurement,
)
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.request import PlanRequest, PlanResult
from joulepath_operator.figures.coverage import coverage
from joulepath_operator.figures.order import check_labels, executed
from joulepath_operator.figures.profile import build_profile
from joulepath_operator.figures.timing.delays import measure_delays
from joulepath_operator.planning.compute import compute
from joulepath_rules import Applied, Arm
from simulated_job import SimulatedJob

CLOCKS = (1400, 1300, 1200, 1100, 1000)
TRANSFER_S, TAIL_S, WAIT_W = 0.002, 0.01, 80.0
BASE_S = {"F": 0.05, "B": 0.1, "I": 0.055, "W": 0.045}


def pipeline_of(schedule: planner.Schedule) -> planner.Pipeline:
    """Stage 3 is the slowest, so that the others have slack."""
    points = {
        (one.stage, one.kind): tuple(
            planner.Point(clock, base * (1400 / clock) ** 0.8, base * (100 + 250 * (clock / 1400) ** 2))
            for clock in CLOCKS
        )
        for order in schedule.orders
        for one in order
        for base in (BASE_S.get(one.kind, 0.13) * (1.4 if one.stage == 3 else 1.0),)
    }
    edges = [(stage, stage + 1) for stage in range(schedule.stages - 1)]
    transfers = {(a, b, "F"): TRANSFER_S for a, b in edges} | {(b, a, k): TRANSFER_S for a, b in edges for k in "BI"}
    tails = {max(one.stage for one in order): TAIL_S for order in schedule.orders}
    return planner.Pipeline(schedule, planner.Profile(points, WAIT_W), transfer_s=transfers, tail_s=tails)


def gang_of(truth: planner.Pipeline, label: Callable[[planner.Instruction], str] = str) -> Gang:
    """What the ranks report of a sweep, each on a clock of its own."""
    default = planner.simulate(truth)
    ranks = []
    for number, order in enumerate(truth.schedule.orders):
        works = sorted({(one.stage, one.kind) for one in order})
        ranks.append(
            RankReport(
                rank=number,
                pod="p",
                pod_uid="p",
                gpu_uuid=f"GPU-{number}",
                coordinates=Coordinates(pipeline=number),
                stages=tuple(sorted({one.stage for one in order})),
                stage_count=truth.schedule.stages,
                schedule="Recorded",
                microbatches=truth.schedule.microbatches,
                order=tuple(label(one) for one in order),
                control_time_s=default.iteration_time_s,
                tail_s=TAIL_S,
                timeline=tuple(
                    InstructionTime(
                        instruction=str(event.instruction),
                        stage=event.instruction.stage,
                        begin_s=event.start_s - 0.1 * number,
                        end_s=event.start_s + event.duration_s - 0.1 * number,
                    )
                    for event in default.ranks[number]
                ),
                instructions=tuple(
                    InstructionMeasurement(
                        stage=stage,
                        kind=kind,
                        clock_mhz=0 if clock == CLOCKS[0] else clock,
                        samples=9,
                        time_s=seconds,
                        time_standard_error_s=seconds * 1e-4,
                        power_w=joules / seconds,
                        power_standard_error_w=0.1,
                    )
                    for stage, kind in works
                    for clock in CLOCKS
                    for seconds, joules in (truth.profile.at(stage, kind, clock),)
                ),
                waits=tuple(
                    WaitMeasurement(clock_mhz=clock, power_w=WAIT_W, power_standard_error_w=0.1)
                    for clock in (0, *CLOCKS[1:])
                ),
            )
        )
    gpus = {
        rank.gpu_uuid: GpuReport(
            uuid=rank.gpu_uuid, model="m", default_clock_mhz=CLOCKS[0], supported_clocks_mhz=CLOCKS
        )
        for rank in ranks
    }
    return Gang(0, len(ranks), tuple(ranks), gpus, {rank.rank: 0.0 for rank in ranks})


def planned(gang: Gang) -> PlanResult:
    topology = gang.topology()
    delays = measure_delays(gang, topology)
    profile = build_profile(gang, topology, (0, *CLOCKS[1:]), delays, "job")
    lag = SwitchingLag(up_median_s=1e-4, up_p95_s=1e-4, down_median_s=1e-4, down_p95_s=1e-4, samples=9)
    request = PlanRequest(
        inputs="",
        profile=profile,
        orders=tuple(labels(rank) for rank in gang.pipeline()),
        delays=delays,
        control_time_s=gang.control_time_s,
        max_slowdown=0.0,
        granularity=Granularity.INSTRUCTION,
        lag=lag,
        supported_clocks_mhz=CLOCKS,
    )
    result = compute(request)
    assert isinstance(result, PlanResult), result
    return result


# As torch's ScheduleInterleaved1F1B and ScheduleZBVZeroBubble order them.
SCHEDULES = {
    "interleaved": planner.recorded(
        [
            "F0 F1 2:F0 2:F1 F2 2:B0 F3 2:B1 2:F2 B0 2:F3 B1 2:B2 2:B3 B2 B3",
            "F0 F1 3:F0 3:B0 3:F1 3:B1 F2 B0 F3 B1 3:F2 3:B2 3:F3 3:B3 B2 B3",
        ]
    ),
    "zbv": planner.recorded(
        [
            "F0 F1 F2 3:F0 3:I0 3:W0 3:F1 3:I1 3:W1 F3 I0 W0 3:F2 3:I2 3:W2 I1 W1 3:F3 3:I3 3:W3 I2 W2 I3 W3",
            "F0 2:F0 F1 2:F1 2:I0 2:W0 F2 I0 W0 2:F2 2:I1 2:W1 F3 I1 W1 2:F3 2:I2 2:W2 I2 2:I3 I3 W2 2:W3 W3",
        ]
    ),
    "pairs": planner.recorded(
        [
            "F0 F1 2:F0 2:F1 F2 F3&2:B0 2:F2&2:B1 2:F3&0:B0 B1 2:B2 2:B3 B2 B3",
            "F0 F1 3:F0 3:F1&3:B0 F2&3:B1 F3&1:B0 3:F2&1:B1 3:F3&3:B2 3:B3 B2 B3",
        ]
    ),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_stages_that_share_a_rank_are_planned_each_by_itself(schedule: planner.Schedule) -> None:
    truth = pipeline_of(schedule)
    result = planned(gang_of(truth))
    assert [stage.stage for stage in result.stages] == list(range(schedule.stages))
    for part in result.stages:
        (order,) = (order for order in schedule.orders if any(one.stage == part.stage for one in order))
        assert part.order == tuple(str(one) for one in order if one.stage == part.stage)
    clock_of = {
        (part.stage, name): clock or None
        for part in result.stages
        for name, clock in zip(part.order, part.clocks_mhz, strict=True)
    }
    clocks = tuple(tuple(clock_of[one.stage, str(one)] for one in order) for order in schedule.orders)
    replayed = planner.simulate(truth, clocks)
    default = planner.simulate(truth)
    assert result.t_min_s == pytest.approx(default.iteration_time_s, rel=2e-3)
    assert replayed.iteration_time_s <= default.iteration_time_s * 1.002
    saved = 1 - replayed.energy_j / default.energy_j
    assert saved == pytest.approx(result.predicted_savings, abs=0.01)
    assert saved > 0.02


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_delays_between_ranks_are_found_where_some_receivers_are_always_busy(schedule: planner.Schedule) -> None:
    gang = gang_of(pipeline_of(schedule))
    delays = measure_delays(gang, gang.topology()).transfers_s
    assert list(delays.values()) == pytest.approx([TRANSFER_S] * len(delays), abs=1e-6)
    assert len(delays) == 2 * sum(rank_of(schedule, one) != rank_of(schedule, one + 1) for one in range(3))


def rank_of(schedule: planner.Schedule, stage: int) -> int:
    return next(rank for rank, order in enumerate(schedule.orders) if any(one.stage == stage for one in order))


def test_what_agents_measure_of_pairs_is_theirs() -> None:
    truth = pipeline_of(SCHEDULES["pairs"])
    job = SimulatedJob(truth, time_noise=0.002, energy_noise=0.002, counter_s=0.02)
    job.run(40, lambda _: Applied(Arm.DEFAULT))
    for rank, order in zip(job.gang().ranks, truth.schedule.orders, strict=True):
        assert labels(rank) == tuple(one.label for one in order)
        measured = {(one.stage, one.kind): one for one in rank.instructions}
        assert set(measured) == {(one.stage, one.kind) for one in order}
        for (stage, kind), one in measured.items():
            seconds, joules = truth.profile.at(stage, kind, CLOCKS[0])
            assert one.time_s == pytest.approx(seconds, rel=0.005)
            assert one.time_s * one.power_w == pytest.approx(joules, rel=0.08)


def labels(rank: RankReport) -> tuple[str, ...]:
    return tuple(one.label for one in executed(rank))


def test_labels_with_their_stage_say_the_same_without_a_timeline() -> None:
    truth = pipeline_of(SCHEDULES["interleaved"])
    by_timeline, by_label = gang_of(truth), gang_of(truth, lambda one: one.label)
    assert [labels(rank) for rank in by_timeline.ranks] == [rank.order for rank in by_label.ranks]
    blank = by_label.ranks[0].model_copy(update={"timeline": ()})
    assert labels(blank) == by_label.ranks[0].order


def test_what_a_rank_runs_is_unknown_until_the_stages_of_all_instructions_are() -> None:
    rank = gang_of(pipeline_of(SCHEDULES["interleaved"])).ranks[0]
    cut = rank.model_copy(update={"timeline": rank.timeline[:-1]})
    assert executed(cut) == ()
    assert not coverage((cut,), Sweep(clocks_mhz=(0,), iterations_per_block=2)).complete
    assert coverage((rank,), Sweep(clocks_mhz=(0, 1300, 1200), iterations_per_block=2)).complete


def test_observe_times_each_stage_of_a_rank(new_world: Callable[..., Any]) -> None:
    world = new_world(EnergyPlanSpec.from_api({"job": {"name": "gpt3"}, "mode": "Observe"}))
    gang = gang_of(pipeline_of(SCHEDULES["interleaved"]))
    report = world.nodes()[0].report.model_copy(update={"world_size": len(gang.ranks), "ranks": gang.ranks})
    nodes = (replace(world.nodes()[0], report=report, gpus=tuple(gang.gpus.values())),)
    world.nodes = lambda: nodes
    world.settle()
    assert [stage.stage for stage in world.plan.stages] == list(range(4))
    assert [len(stage.order) for stage in world.plan.stages] == [8] * 4
    assert [min(stage.durations_s) for stage in world.plan.stages] == pytest.approx([0.05, 0.05, 0.05, 0.07])


class Label(str):
    """One that counts how often it is looked into."""

    looks = 0

    def __contains__(self, part: object) -> bool:
        Label.looks += 1
        return super().__contains__(str(part))


def test_a_label_that_is_told_again_and_again_is_checked_once(new_world: Callable[..., Any]) -> None:
    told = {"stages": (0, 1), "order": (Label("1:F0"),) * 1000, "timeline": ()}
    check_labels(new_world().nodes()[0].report.ranks[0].model_copy(update=told))
    assert 0 < Label.looks < 10
