"""Real engines of DeepSpeed over gloo, observed through the hook."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import frameworks
from agent_double import AgentDouble
from framework_table import Row
from joulepath_trainer.wire.page import Ending
from tests.trainer.conftest import Nursery
from tests.trainer.frameworks.versions import assert_told, iterations_that, nursery_of, of_the_table, told_by

pytestmark = pytest.mark.slow

MICROBATCHES, STEPS = 4, 5


@pytest.fixture(scope="module", params=frameworks.names("deepspeed"))
def deepspeed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    yield from nursery_of(request.param, "deepspeed_scenarios", tmp_path_factory)


@pytest.mark.parametrize(("world", "pipeline"), [(2, 2), (4, 2)])
@of_the_table("deepspeed", "deepspeed")
def test_what_each_rank_of_a_pipeline_ran_is_told_instruction_for_instruction(
    deepspeed: Nursery, row: Row, world: int, pipeline: int
) -> None:
    with AgentDouble(deepspeed.socket) as agent:
        ran = deepspeed.run("train_pipeline", world, steps=STEPS, pipeline=pipeline, evaluate_after=2)
        ranks = agent.ranks(world)
    for number, rank in enumerate(ranks):
        place = rank.hello.pipeline
        assert (place.schedule, place.microbatches, place.stage_count) == ("DeepSpeed1F1B", MICROBATCHES, pipeline)
        assert place.stages == (place.ranks.index(number),)
        assert list(place.ranks) == ran[number]["pipeline"]
        assert (rank.hello.data, rank.hello.data_parallel) == (ran[number]["data"], world // pipeline)
        assert {record.iteration for record in rank.records} >= set(range(1, STEPS)), "an evaluation isn't counted"
        untimed = {record.iteration for record in rank.records if not record.period_s}
        assert untimed == {STEPS - 1}
        assert iterations_that(Ending.PARTED, rank) == {2}, "it is marked where it begins"
        assert_told(rank, ran[number]["orders"])


@of_the_table("zero", "deepspeed")
def test_a_step_of_the_engine_is_one_iteration_whatever_steps_its_optimizers_make(deepspeed: Nursery, row: Row) -> None:
    with AgentDouble(deepspeed.socket) as agent:
        deepspeed.run("train_in_groups", 2, steps=8, **row.options)
        ranks = agent.ranks(2)
    for rank in ranks:
        assert (rank.hello.pipeline.schedule, rank.hello.pipeline.microbatches) == ("NoPipeline", 1)
        assert max(entry.iteration for entry in rank.entries()) == 8, "the one that begins with the last step"
        assert set(map(str, told_by(rank).values())) == {str([["F", 0, 0], ["B", 0, 0]])}


def test_training_computes_the_same_with_an_agent_and_without(deepspeed: Nursery) -> None:
    alone = deepspeed.run("train_pipeline", 2, steps=4, pipeline=2)
    with AgentDouble(deepspeed.socket) as agent:
        observed = deepspeed.run("train_pipeline", 2, steps=4, pipeline=2)
        agent.ranks(2)
    assert [one["losses"] for one in alone] == [one["losses"] for one in observed]
    assert alone[0]["losses"][0] != alone[0]["losses"][-1]
