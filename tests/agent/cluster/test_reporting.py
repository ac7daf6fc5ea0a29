"""When a report is written."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from joulepath_agent.cluster.reporting import Looks, Pace, fitting, of_facts, of_measurements, of_state
from joulepath_crds import (
    Arm,
    BlockReport,
    Coordinates,
    GpuReport,
    InjectionReport,
    JobReport,
    NodeReportStatus,
    OldPythonReport,
    RankReport,
    RankState,
    learnt_from,
)


def report(**rank: object) -> NodeReportStatus:
    """A report of one rank."""
    fields = {
        "rank": 0,
        "pod": "pod",
        "pod_uid": "uid",
        "gpu_uuid": "GPU-1",
        "coordinates": Coordinates(),
        "stages": (0,),
        "stage_count": 1,
        "schedule": "1F1B",
        "microbatches": 1,
        "iteration": 1,
    }
    ranks = (RankReport.model_validate({**fields, **rank}),)
    return NodeReportStatus(jobs=(JobReport(job_uid="u", namespace="n", job="j", world_size=1, ranks=ranks),))


def pace(looks: Callable[[NodeReportStatus], Looks], share: float = 1.0) -> Pace:
    """That waits for as long as it may, or a share of that."""
    return Pace(looks, lambda: share)


PARTS = of_facts, of_state, of_measurements


@pytest.mark.parametrize("looks", PARTS)
def test_the_first_report_is_written_and_an_equal_one_never_again(looks: Callable[[NodeReportStatus], Looks]) -> None:
    of_part = pace(looks)
    assert of_part.due(report(), 0.0)
    of_part.wrote(report(), 0.0)
    assert not of_part.due(report(), 1000.0)


LINE = {"instruction": "F0", "stage": 0, "begin_s": 0.1, "end_s": 0.2}
MEASURED = {
    "stage": 0,
    "kind": "F",
    "clock_mhz": 900,
    "samples": 9,
    "time_s": 0.1,
    "time_standard_error_s": 0.0,
    "power_w": 300.0,
    "power_standard_error_w": 1.0,
}


def blocks(count: int, arm: Arm = Arm.PLAN) -> tuple[BlockReport, ...]:
    """So many of a plan, or of a sweep."""
    fields = {"hash": "h", "arm": arm, "iterations": 1, "iteration_time_s": 1.0, "energy_per_iteration_j": 1.0}
    return tuple(BlockReport.model_validate({**fields, "block": block}) for block in range(count))


(BLOCK,) = blocks(1)
OLD = OldPythonReport(pod_uid="u", version="3.8", needed="3.10")
MADE = InjectionReport(pod_uid="u", namespace="n", pod="p", container="c", outcome="Injected")
GPU = GpuReport(uuid="GPU-1", model="A100", default_clock_mhz=1410, supported_clocks_mhz=(1410,))


def of_node(**fields: object) -> NodeReportStatus:
    """A report of one rank, with that of its node."""
    return report().model_copy(update=fields)


@pytest.mark.parametrize(
    ("looks", "change", "after_s"),
    [
        (of_facts, of_node(gpus=(GPU,)), 0.5),
        (of_facts, of_node(policy="Paused"), 0.5),
        *((of_facts, of_node(**{name: value}), 5.0) for name, value in (
            ("injection", (MADE,)), ("injector", "Ready"), ("injector_why", "it refused"), ("old_pythons", (OLD,))
        )),
        (of_facts, of_node(agent_version="2"), 300.0),
        (of_state, report(staged_hash="one"), 0.5),
        (of_state, report(state="Refused"), 0.5),
        (of_state, report(control_time_s=1.0), 0.5),
        (of_state, report(slowdown=1.2), 0.5),
        (of_state, NodeReportStatus(), 0.5),
        (of_state, report(iteration=0), 0.5),
        (of_state, report(iteration=2), 60.0),
        (of_measurements, report(order=("F0",)), 0.5),
        (of_measurements, report(timeline=(LINE,)), 0.5),
        (of_measurements, report(blocks=blocks(1, Arm.SWEEP)), 5.0),
        (of_measurements, report(blocks=blocks(8)), 5.0),
        (of_measurements, report(instructions=(MEASURED,)), 0.5),
        (of_measurements, report(waits=({"clock_mhz": 0, "power_w": 90.0, "power_standard_error_w": 1.0},)), 30.0),
    ],
)  # fmt: skip
def test_what_a_plan_waits_for_is_written_at_once_and_the_rest_by_and_by(
    looks: Callable[[NodeReportStatus], Looks], change: NodeReportStatus, after_s: float
) -> None:
    """Else pods that come and go by the second, or iterations, would have reports written as often."""
    of_part = pace(looks)
    of_part.wrote(report(), 0.0)
    assert not of_part.due(change, after_s - 0.1)
    assert of_part.due(change, after_s)


@pytest.mark.parametrize(
    ("looks", "change"),
    [
        (of_facts, {"iteration": 2, "blocks": (BLOCK,)}),
        (of_state, {"blocks": (BLOCK,), "instructions": (MEASURED,)}),
        (of_measurements, {"iteration": 2, "plan_timeline": (LINE,)}),
    ],
)
def test_what_is_of_another_part_is_no_reason_to_write_one(
    looks: Callable[[NodeReportStatus], Looks], change: dict[str, object]
) -> None:
    of_part = pace(looks)
    of_part.wrote(report(), 0.0)
    assert not of_part.due(report(**change), 1e6)


@pytest.mark.parametrize(("ranks", "state_s", "blocks_s"), [(64, 60.0, 5.0), (512, 60.0, 32.0), (8192, 60.0, 120.0)])
def test_the_larger_a_job_the_longer_its_nodes_wait(ranks: int, state_s: float, blocks_s: float) -> None:
    def of_job(**rank: object) -> NodeReportStatus:
        (job,) = report(**rank).jobs
        return NodeReportStatus(jobs=(job.model_copy(update={"world_size": ranks}),))

    for looks, after_s, change in (
        (of_state, state_s, {"iteration": 2}),
        (of_measurements, blocks_s, {"blocks": blocks(8)}),
    ):
        of_part = pace(looks)
        of_part.wrote(of_job(), 0.0)
        assert not of_part.due(of_job(**change), after_s - 0.1)
        assert of_part.due(of_job(**change), after_s)


def test_a_sweep_is_told_once_it_is_over_and_then_at_once() -> None:
    """All nodes of a job would write at each of its blocks, and nobody acts on half a sweep."""
    of_part, sweeping = pace(of_measurements), {"state": RankState.SWEEPING, "blocks": (BLOCK,)}
    measured, more = (MEASURED,), (MEASURED, MEASURED | {"clock_mhz": 600})
    of_part.wrote(report(), 0.0)
    for told in (sweeping, sweeping | {"instructions": measured}):
        assert not of_part.due(report(**told), 1e6)
    assert of_part.due(report(**sweeping | {"order": ("F0",)}), 0.5), "but for what a plan waits for"
    of_part.wrote(report(**sweeping | {"instructions": measured}), 0.0)
    assert of_part.due(report(state=RankState.STAGED, instructions=more), 0.5)
    of_part.wrote(report(state=RankState.STAGED, instructions=more), 0.0)
    assert not of_part.due(report(state=RankState.STAGED, instructions=more), 1e6)


def test_nodes_that_begin_together_write_apart_by_and_by_and_none_waits_for_longer() -> None:
    """All nodes of a job have a block whole at the same moment, again and again."""
    paces = [Pace(of_state) for _ in range(100)]
    for one in paces:
        one.wrote(report(), 0.0)
    assert 10 < sum(one.due(report(iteration=2), 52.0) for one in paces) < 90
    assert all(one.due(report(iteration=2), 60.0) for one in paces)


def writes(looks: Callable[[NodeReportStatus], Looks], told: Callable[[int], NodeReportStatus], seconds: int) -> int:
    """How often a part is written in so many seconds."""
    of_part, found = pace(looks, 0.75), 0
    of_part.wrote(told(0), 0.0)
    for now_s in range(seconds):
        if of_part.due(told(now_s), now_s):
            of_part.wrote(told(now_s), now_s)
            found += 1
    return found


@pytest.mark.parametrize("ranks", [8, 8192])
@pytest.mark.parametrize(("begun", "dense"), [(48, True), (96, True), (400, True), (3000, False)])
def test_a_node_writes_twice_a_minute_while_a_plan_is_in_force(ranks: int, begun: int, dense: bool) -> None:
    """However old the job: iterations of 3 s in blocks of 6, and measurements become more exact with each."""

    def told(now_s: int) -> NodeReportStatus:
        at = begun + now_s // 3
        waits = ({"clock_mhz": 0, "power_w": float(at), "power_standard_error_w": 1.0},)
        measured = blocks(at // 6)[-256:] if dense else blocks(64)
        (job,) = report(iteration=at, iteration_time_s=3.0, blocks=measured, waits=waits, applied_hash="h").jobs
        return NodeReportStatus(jobs=(job.model_copy(update={"world_size": ranks}),))

    minutes = 10
    state, measured = (writes(part, told, 60 * minutes) / minutes for part in (of_state, of_measurements))
    assert state <= 1.4
    assert measured <= (0.6 if dense else 0.3)


def test_pairs_that_only_add_to_a_figure_wait_and_of_fewer_than_four_none_is_told() -> None:
    of_part = pace(of_measurements)
    of_part.wrote(report(), 0.0)
    assert not of_part.due(report(blocks=blocks(7)), 1e6)
    of_part.wrote(report(blocks=blocks(16)), 0.0)
    assert not of_part.due(report(blocks=blocks(18)), 299.0)
    assert of_part.due(report(blocks=blocks(18)), 300.0)
    assert not of_part.due(report(blocks=blocks(16)), 1e6)


def test_a_figure_is_told_when_there_is_one_and_as_it_becomes_more_exact() -> None:
    of_part, told = pace(of_measurements), []
    of_part.wrote(report(), 0.0)
    for pairs in range(33):
        now = report(blocks=blocks(2 * pairs))
        if of_part.due(now, now_s := 10.0 * pairs):
            of_part.wrote(now, now_s)
            told.append(pairs)
    assert told == [4, 6, 8, 12, 16, 23, 32]


def test_timelines_are_told_of_the_pipelines_that_are_learnt_from() -> None:
    ranks = tuple(
        report(rank=n, timeline=(LINE,), coordinates=Coordinates(tensor=n), tensor_parallel=8).jobs[0].ranks[0]
        for n in range(8)
    )
    whole = NodeReportStatus(jobs=(report().jobs[0].model_copy(update={"ranks": ranks}),))
    told = [rank.rank for rank in fitting(whole, 100_000).jobs[0].ranks if rank.timeline]
    assert told == [tensor for _, tensor in learnt_from(1, 8)]
    assert len(told) == 5


def test_a_report_that_is_too_large_sheds_the_measurements_of_the_ranks_that_tell_most() -> None:
    small, large = (report(rank=n, timeline=(LINE,) * count).jobs[0].ranks[0] for n, count in ((0, 10), (1, 1000)))
    job = report().jobs[0].model_copy(update={"ranks": (small, large, small)})
    whole = NodeReportStatus(jobs=(job,))
    assert fitting(whole, 100_000) == whole
    (first, second, third) = fitting(whole, 20_000).jobs[0].ranks
    assert (first, third) == (small, small)
    assert second.timeline == ()
    assert second.reason.startswith("OverBudget")
    assert len(fitting(whole, 20_000).model_dump_json(by_alias=True)) <= 20_000


def test_what_ranks_did_under_a_plan_is_shed_before_what_plans_are_made_of() -> None:
    ranks = [report(rank=n, timeline=(LINE,) * 100, plan_timeline=(LINE,) * 100).jobs[0].ranks[0] for n in range(8)]
    whole = NodeReportStatus(jobs=(report().jobs[0].model_copy(update={"ranks": tuple(ranks)}),))
    most = len(whole.model_dump_json(by_alias=True)) * 2 // 3
    shed = fitting(whole, most)
    assert len(shed.model_dump_json(by_alias=True)) <= most
    assert [rank.timeline for rank in shed.jobs[0].ranks] == [rank.timeline for rank in ranks]
    assert {len(rank.plan_timeline) for rank in shed.jobs[0].ranks} == {0, 100}
    assert {rank.reason for rank in shed.jobs[0].ranks} == {""}
