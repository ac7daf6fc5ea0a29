"""Real schedules of Megatron-core over gloo, observed through the hook, in versions from the oldest to the newest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import frameworks
from agent_double import AgentDouble
from framework_table import Row
from joulepath_trainer.wire.page import Ending
from tests.trainer.conftest import Nursery
from tests.trainer.frameworks.versions import assert_passes, assert_told, iterations_that, nursery_of, of_the_table

pytestmark = pytest.mark.slow

MICROBATCHES, STEPS = 4, 5


@pytest.fixture(scope="module", params=frameworks.names("megatron"))
def megatron(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    yield from nursery_of(request.param, "megatron_scenarios", tmp_path_factory)


@of_the_table("megatron", "megatron")
def test_what_each_rank_ran_is_told_instruction_for_instruction(megatron: Nursery, row: Row) -> None:
    with AgentDouble(megatron.socket) as agent:
        ran = megatron.run("train", 2, steps=STEPS, evaluate_after=2, pipeline=2, **row.options)
        ranks = agent.ranks(2)
    chunks = row.options.get("chunks", 1)
    schedule = "MegatronInterleaved1F1B" if chunks > 1 else "Megatron1F1B"
    for number, rank in enumerate(ranks):
        place = rank.hello.pipeline
        index = place.ranks.index(number)
        assert (place.schedule, place.microbatches, place.stage_count) == (
            schedule,
            MICROBATCHES,
            2 * chunks,
        )
        assert place.stages == tuple(index + 2 * chunk for chunk in range(chunks))
        assert list(place.ranks) == ran[number]["pipeline"]
        assert {record.iteration for record in rank.records} >= set(range(1, STEPS)), "an evaluation isn't counted"
        untimed = {record.iteration for record in rank.records if not record.period_s}
        assert untimed == {STEPS - 1}
        assert iterations_that(Ending.PARTED, rank) == {2}, "it is marked where it begins"
        assert_told(rank, ran[number]["orders"])


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(
    "megatron", [name for name in frameworks.names("megatron") if "0.12" not in name], indirect=True
)
def test_a_forward_and_a_backward_that_run_interleaved_are_told_as_a_pair(megatron: Nursery, batched: bool) -> None:
    """As where the exchanges of experts are overlapped."""
    with AgentDouble(megatron.socket) as agent:
        ran = megatron.run("train", 2, steps=STEPS, pipeline=2, chunks=2, batched=batched, combined=True)
        ranks = agent.ranks(2)
    assert ran[1]["losses"][0] != ran[1]["losses"][-1]
    for number, rank in enumerate(ranks):
        assert rank.hello.lacks == ""
        assert {one[0] for one in ran[number]["orders"][-1]} == {"F", "P", "B"}
        assert {record.iteration for record in rank.records} >= set(range(1, STEPS))
        assert_told(rank, ran[number]["orders"])


@pytest.mark.parametrize("options", [{"pipeline": 2, "tensor": 2}, {"pipeline": 2, "context": 2}, {"pipeline": 2}])
def test_coordinates_are_those_of_megatron(megatron: Nursery, options: dict[str, Any]) -> None:
    with AgentDouble(megatron.socket) as agent:
        ran = megatron.run("train", 4, steps=3, **options)
        ranks = agent.ranks(4)
    peers = options.get("tensor", 1) * options.get("context", 1)
    for told, rank in zip(ran, ranks, strict=True):
        assert [rank.hello.data, rank.hello.tensor] == [told["data"], told["tensor"]]
        assert list(rank.hello.pipeline.ranks) == told["pipeline"]
        assert rank.hello.tensor_parallel == peers
        assert rank.hello.data_parallel == 4 // (peers * options["pipeline"])


@pytest.mark.parametrize("deallocate", [False, True])
@of_the_table("megatron_alone", "megatron")
def test_without_a_pipeline_forward_and_backward_are_told_by_whichever_function_it_goes_back(
    megatron: Nursery, row: Row, deallocate: bool
) -> None:
    with AgentDouble(megatron.socket) as agent:
        ran = megatron.run("train", 2, steps=8, pipeline=1, deallocate=deallocate)
        ranks = agent.ranks(2)
    for told, rank in zip(ran, ranks, strict=True):
        place = rank.hello.pipeline
        assert (place.schedule, place.stage_count, place.microbatches) == ("NoPipeline", 1, MICROBATCHES)
        assert_passes(rank, told["orders"])


def test_without_a_pipeline_microbatches_may_vary_and_are_told_once_they_dont(megatron: Nursery) -> None:
    with AgentDouble(megatron.socket) as agent:
        megatron.run("train", 2, steps=15, pipeline=1, ramp=[2, 2, 3, 1])
        ranks = agent.ranks(4)
    for number in range(2):
        first, then = (rank.hello.pipeline for rank in ranks if rank.hello.rank == number)
        assert (first.schedule, then.schedule) == ("VaryingBackwards", "NoPipeline")
        assert then.microbatches == MICROBATCHES


def test_a_pipeline_whose_microbatches_grow_is_told_anew_from_then_on(megatron: Nursery) -> None:
    """As by --rampup-batch-size."""
    with AgentDouble(megatron.socket) as agent:
        ran = megatron.run("train", 2, steps=10, pipeline=2, ramp=[2] * 4)
        ranks = agent.ranks(4)
    for number in range(2):
        first, then = (rank for rank in ranks if rank.hello.rank == number)
        assert (first.hello.pipeline.microbatches, then.hello.pipeline.microbatches) == (2, MICROBATCHES)
        assert_told(then, ran[number]["orders"][6:])  # once there were three such steps in a row


def test_a_step_that_is_skipped_parts_the_iteration_from_the_next(megatron: Nursery) -> None:
    with AgentDouble(megatron.socket) as agent:
        skipped = megatron.run("train_overflowing", 2, steps=8, overflows=4)
        ranks = agent.ranks(2)
    assert skipped == [[4], [4]]
    for rank in ranks:
        assert iterations_that(Ending.PARTED, rank) == {4}


def test_training_computes_the_same_with_an_agent_and_without(megatron: Nursery) -> None:
    options = {"pipeline": 2, "chunks": 2, "steps": 4}
    alone = megatron.run("train", 2, **options)
    with AgentDouble(megatron.socket) as agent:
        observed = megatron.run("train", 2, **options)
        agent.ranks(2)
    assert [one["losses"] for one in alone] == [one["losses"] for one in observed]
    assert alone[1]["losses"][0] != alone[1]["losses"][-1]
