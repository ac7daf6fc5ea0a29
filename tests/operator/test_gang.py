"""Which attempt of a job its gang is, where nodes tell of several."""

from __future__ import annotations

import pytest

from joulepath_crds import Coordinates, JobReport, RankReport, RankState
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.observation import NodeJob


def node(name: str, attempt: int, age_s: float, iteration_time_s: float = 1.0) -> NodeJob:
    rank = RankReport(
        rank=0,
        pod="gpt3-worker-0",
        pod_uid="p",
        gpu_uuid="GPU-0",
        coordinates=Coordinates(pipeline=0),
        stages=(0,),
        stage_count=1,
        schedule="1F1B",
        microbatches=1,
        iteration=9,
        iteration_time_s=iteration_time_s,
        state=RankState.OBSERVING,
    )
    report = JobReport(job_uid="u", namespace="team", job="gpt3", attempt=attempt, world_size=1, ranks=(rank,))
    return NodeJob(name, report, (), age_s)


@pytest.mark.parametrize(
    ("nodes", "attempt"),
    [
        ([node("a", 7, 25.0), node("b", 6, 1.0)], 7),
        ([node("lost", 7, 61.0), node("b", 6, 29.0)], 6),
        ([node("lost", 7, 170.0), node("b", 6, 61.0)], 7),
        ([node("slow", 7, 110.0, 60.0), node("b", 6, 1.0)], 7),
    ],
    ids=["both speak", "a node is lost", "both are silent", "iterations are long"],
)
def test_the_newest_attempt_that_still_speaks_is_the_job_s(nodes: list[NodeJob], attempt: int) -> None:
    """Numbers come from the clocks of several nodes: that of a lost one may be ahead of the attempt after it."""
    gang = Gang.of(nodes)
    assert gang is not None
    assert gang.attempt == attempt
