"""When a report is written."""

from __future__ import annotations

import pytest

from joulepath_agent.cluster.reporting import Pace, fitting
from joulepath_crds import (
    Arm,
    BlockReport,
    Coordinates,
    InjectionReport,
    JobReport,
    NodeReportStatus,
    OldPythonReport,
    RankReport,
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
    }
    ranks = (RankReport.model_validate({**fields, **rank}),)
    return NodeReportStatus(jobs=(JobReport(job_uid="u", namespace="n", job="j", world_size=1, ranks=ranks),))


def test_the_first_report_is_written_and_an_equal_one_never_again() -> None:
    pace = Pace()
    assert pace.due(report(), 0.0)
    pace.wrote(report(), 0.0)
    assert not pace.due(report(), 1000.0)


@pytest.mark.parametrize(
    "change",
    [{"staged_hash": "one"}, {"order": ("F0",)}, {"state": "Refused"}, {"control_time_s": 1.0}, {"slowdown": 1.2}],
)
def test_what_the_operator_waits_for_is_written_within_half_a_second(change: dict[str, object]) -> None:
    pace = Pace()
    pace.wrote(report(), 0.0)
    assert not pace.due(report(**change), 0.4)
    assert pace.due(report(**change), 0.5)


OLD = OldPythonReport(pod_uid="u", version="3.8", needed="3.10")
MADE = InjectionReport(pod_uid="u", namespace="n", pod="p", container="c", outcome="Injected")


@pytest.mark.parametrize(
    "change", [{"injection": (MADE,)}, {"injector": "Ready"}, {"injector_why": "it refused"}, {"old_pythons": (OLD,)}]
)
def test_what_the_injector_tells_is_written_at_most_every_five_seconds(change: dict[str, object]) -> None:
    """Else pods that come and go by the second would have a report of a megabyte written as often."""
    pace = Pace()
    pace.wrote(report(), 0.0)
    assert not pace.due(report().model_copy(update=change), 4.9)
    assert pace.due(report().model_copy(update=change), 5.0)


def test_a_rank_that_is_gone_is_written_within_half_a_second() -> None:
    pace = Pace()
    pace.wrote(report(), 0.0)
    assert pace.due(NodeReportStatus(), 0.5)


def test_the_iteration_alone_is_written_twice_a_minute() -> None:
    pace = Pace()
    pace.wrote(report(iteration=1), 0.0)
    assert not pace.due(report(iteration=2), 29.9)
    assert pace.due(report(iteration=2), 30.0)


def test_a_block_is_written_within_five_seconds() -> None:
    block = BlockReport(hash="h", block=0, arm=Arm.PLAN, iterations=1, iteration_time_s=1.0, energy_per_iteration_j=1.0)
    pace = Pace()
    pace.wrote(report(), 0.0)
    assert not pace.due(report(blocks=(block,)), 4.9)
    assert pace.due(report(blocks=(block,)), 5.0)


def test_a_report_that_is_too_large_sheds_the_measurements_of_the_ranks_that_tell_most() -> None:
    line = {"instruction": "F0", "stage": 0, "begin_s": 0.1, "end_s": 0.2}
    small, large = (report(rank=n, timeline=(line,) * count).jobs[0].ranks[0] for n, count in ((0, 10), (1, 1000)))
    job = report().jobs[0].model_copy(update={"ranks": (small, large, small)})
    whole = NodeReportStatus(jobs=(job,))
    assert fitting(whole, 100_000) is whole
    (first, second, third) = fitting(whole, 20_000).jobs[0].ranks
    assert (first, third) == (small, small)
    assert second.timeline == ()
    assert second.reason.startswith("OverBudget")
    assert len(fitting(whole, 20_000).model_dump_json(by_alias=True)) <= 20_000


def test_what_ranks_did_under_a_plan_is_shed_before_what_plans_are_made_of() -> None:
    line = {"instruction": "F0", "stage": 0, "begin_s": 0.1, "end_s": 0.2}
    ranks = [report(rank=n, timeline=(line,) * 100, plan_timeline=(line,) * 100).jobs[0].ranks[0] for n in range(8)]
    whole = NodeReportStatus(jobs=(report().jobs[0].model_copy(update={"ranks": tuple(ranks)}),))
    most = len(whole.model_dump_json(by_alias=True)) * 2 // 3
    shed = fitting(whole, most)
    assert len(shed.model_dump_json(by_alias=True)) <= most
    assert [rank.timeline for rank in shed.jobs[0].ranks] == [rank.timeline for rank in ranks]
    assert {len(rank.plan_timeline) for rank in shed.jobs[0].ranks} == {0, 100}
    assert {rank.reason for rank in shed.jobs[0].ranks} == {""}
