"""Which attempt of a job its gang is, where nodes tell of several."""

from __future__ import annotations

from dataclasses import replace

import pytest

from joulepath_crds import Coordinates, JobReport, RankReport, RankState
from joulepath_operator.facts.gang import Gang, rivals
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
        ([node("lost", 7, 91.0), node("b", 6, 59.0)], 6),
        ([node("lost", 7, 170.0), node("b", 6, 91.0)], 7),
        ([node("slow", 7, 110.0, 60.0), node("b", 6, 1.0)], 7),
    ],
    ids=["both speak", "a node is lost", "both are silent", "iterations are long"],
)
def test_the_newest_attempt_that_still_speaks_is_the_job_s(nodes: list[NodeJob], attempt: int) -> None:
    """Numbers come from the clocks of several nodes: that of a lost one may be ahead of the attempt after it."""
    gang = Gang.of(nodes)
    assert gang is not None
    assert gang.attempt == attempt


def told(pod: str, attempt: int = 7, *, age_s: float = 1.0, rank: int = 0, world_size: int = 1) -> NodeJob:
    """A node with a rank of this pod, on a GPU of its own."""
    one = node(f"of-{pod}", attempt, age_s)
    ranks = (one.report.ranks[0].model_copy(update={"rank": rank, "pod": pod, "pod_uid": pod, "gpu_uuid": pod}),)
    return replace(one, report=one.report.model_copy(update={"world_size": world_size, "ranks": ranks}))


def test_pods_of_one_job_that_train_each_for_itself_are_rivals() -> None:
    """Such as those of a search for hyper-parameters; without a store to agree in, all are of attempt 0."""
    assert rivals([told("a", 0), told("b", 0), told("c", 0)]) == ("a", "b")
    assert rivals([told("a", 7), told("b", 9)]) == ("a", "b")
    first, second = told("a"), told("b")
    ranks = first.report.ranks + second.report.ranks
    on_one_node = replace(first, report=first.report.model_copy(update={"ranks": ranks}))
    assert rivals([on_one_node]) == ("a", "b")
    pairs = [told(f"{name}{rank}", at, rank=rank, world_size=2) for name, at in (("a", 7), ("b", 9)) for rank in (0, 1)]
    assert rivals(pairs) == ("a0", "b0")


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        [told("a", rank=0, world_size=2), told("b", rank=1, world_size=2)],
        [told("a", age_s=91.0), told("b")],
        [told("a", 6, age_s=91.0), told("b", 7)],
        [told("a", 6), told("a", 7)],
        [told("a", 6), told("b", 7, world_size=2)],
        [
            *(told(pod, 6, rank=rank, world_size=2) for rank, pod in enumerate("ab")),
            *(told(pod, 7, rank=rank, world_size=2) for rank, pod in enumerate("bc")),
        ],
    ],
    ids=[
        "nobody reports",
        "one gang",
        "a rank has moved",
        "the pods were made anew",
        "an elastic restart",
        "another attempt gathers",
        "an elastic restart with another pod",
    ],
)
def test_a_job_that_restarts_or_moves_has_no_rivals(nodes: list[NodeJob]) -> None:
    assert rivals(nodes) is None
