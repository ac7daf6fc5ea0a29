"""A rank's part of a JobPlan: its stages, in its replica."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from joulepath_agent.part import part_of
from joulepath_clocks.ranks.reason import Reason
from joulepath_clocks.ranks.score import read_score
from joulepath_crds import Contract, JobPlanSpec, Purpose, StagePlan, Stretched, StretchedStage, content_hash
from joulepath_crds import jobplan as contract

STAGES = (
    StagePlan(stage=0, order=("F0", "B0"), clocks_mhz=(1200, 0), durations_s=(0.1, 0.2)),
    StagePlan(stage=1, order=("F0", "B0"), clocks_mhz=(0, 1100), durations_s=(0.1, 0.2)),
)
STRETCHED = Stretched(
    replicas=(0, 2),
    default_replicas=(3,),
    stages=(
        StretchedStage(stage=0, clocks_mhz=(900, 800), durations_s=(0.2, 0.3)),
        StretchedStage(stage=1, clocks_mhz=(700, 600), durations_s=(0.3, 0.4)),
    ),
    control_iteration_time_s=1.2,
    plan_iteration_time_s=1.21,
)


def plan(stretched: Stretched | None = STRETCHED) -> JobPlanSpec:
    return JobPlanSpec(
        energy_plan="gpt3",
        job="gpt3",
        job_uid="0d3e",
        purpose=Purpose.ENFORCE,
        hash="one",
        stages=STAGES,
        stretched=stretched,
        default_clock_mhz=1410,
        control_iteration_time_s=1.0,
        plan_iteration_time_s=1.01,
    )


@pytest.mark.parametrize(
    ("data", "clocks_mhz"),
    [(0, (700, 600)), (1, (0, 1100)), (2, (700, 600)), (3, (0, 0)), (4, (0, 1100))],
    ids=["stretched", "held up", "stretched as well", "held up, at default clocks", "unknown to the plan"],
)
def test_each_replica_has_its_own_part_and_the_time_of_the_one_that_is_held_up(
    data: int, clocks_mhz: tuple[int, ...]
) -> None:
    part = part_of(plan(), {1}, data)
    assert [one.stage for one in part.stages] == [1]
    assert part.stages[0].clocks_mhz == clocks_mhz
    assert (part.control_iteration_time_s, part.plan_iteration_time_s) == (1.2, 1.21)
    assert not isinstance(read_score(part, (1,), ()), Reason)


def test_without_a_straggler_all_replicas_have_the_same() -> None:
    assert part_of(plan(None), {0}, 0) == part_of(plan(None), {0}, 1)
    assert part_of(plan(None), {0}).plan_iteration_time_s == 1.01


def test_a_stage_that_the_stretched_plan_lacks_is_not_played() -> None:
    without = STRETCHED.model_copy(update={"stages": STRETCHED.stages[:1]})
    assert isinstance(read_score(part_of(plan(without), {1}, 0), (1,), ()), Reason), "so it runs default clocks"


def test_an_agent_that_does_not_know_of_it_plays_the_plan_that_all_play() -> None:
    """And the hash is the same to it."""

    class Before(Contract):
        stages: tuple[contract.StagePlan, ...]

    body = plan().to_api()
    assert Before.from_api(body).stages == STAGES
    assert content_hash(body) == content_hash(plan())
    assert content_hash(body) != content_hash(plan(None))


@pytest.mark.parametrize("clocks", [[900], [900, 800, 700]])
def test_clocks_for_other_instructions_than_the_plan_has_are_refused(clocks: list[int]) -> None:
    body: dict[str, Any] = plan().to_api()
    body["stretched"]["stages"][0] |= {"clocksMHz": clocks, "durationsSeconds": [0.1] * len(clocks)}
    with pytest.raises(ValidationError, match=r"stretched, stage 0: .* of the 2 instructions"):
        JobPlanSpec.from_api(body)
