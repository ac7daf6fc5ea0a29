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


def test_of_two_pipelines_that_train_in_turns_one_is_told_up_to_where_the_other_begins(deepspeed: Nursery) -> None:
    """As an actor and a critic do, which are alike but for their parameters."""
    with AgentDouble(deepspeed.socket) as agent:
        ran = deepspeed.run("train_in_turns", 2, turns=[1] * 12)
        ranks = agent.ranks(2)
    for number, rank in enumerate(ranks):
        assert {record.iteration for record in rank.records} >= set(range(1, 6))
        assert all(record.period_s for record in rank.records)
        assert iterations_that(Ending.PARTED, rank) >= set(range(1, 6))
        assert_told(rank, ran[number][0])


def test_of_two_pipelines_that_train_many_steps_in_turn_one_is_told_in_the_end(deepspeed: Nursery) -> None:
    with AgentDouble(deepspeed.socket) as agent:
        ran = deepspeed.run("train_in_turns", 2, turns=[4] * 8)
        ranks = agent.ranks(6)  # the actor's, the critic's from its third on, and the actor's from its seventh on
    for number in range(2):
        *_, last = (rank for rank in ranks if rank.hello.rank == number)
        assert iterations_that(Ending.PARTED, last) == {1, 5, 9}
        told = {record.iteration: [[s.kind, s.stage, s.microbatch] for s in record.spans] for record in last.records}
        assert told == dict(list(enumerate(ran[number][0][6:]))[-len(told) :])


def test_a_pipeline_like_the_one_that_trains_may_evaluate_in_each_iteration(deepspeed: Nursery) -> None:
    """As a reference that is frozen does."""
    with AgentDouble(deepspeed.socket) as agent:
        ran = deepspeed.run("train_in_turns", 2, turns=[8], evaluate=True)
        ranks = agent.ranks(2)
    for number, rank in enumerate(ranks):
        assert {record.iteration for record in rank.records} >= set(range(1, 8))
        assert iterations_that(Ending.PARTED, rank) <= {0, 1, 2}, "then it is a part of each"
        assert_told(rank, ran[number][0])


def test_a_step_that_is_skipped_parts_the_iteration_from_the_next(deepspeed: Nursery) -> None:
    with AgentDouble(deepspeed.socket) as agent:
        skipped = deepspeed.run("train_overflowing", 2, steps=8, overflows=4)
        ranks = agent.ranks(2)
    assert skipped == [[4], [4]]
    for rank in ranks:
        assert iterations_that(Ending.PARTED, rank) == {4}


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_without_a_pipeline_an_iteration_that_skips_its_step_or_evaluates_is_broken_off(
    deepspeed: Nursery, zero: int
) -> None:
    with AgentDouble(deepspeed.socket) as agent:
        skipped = deepspeed.run("train_unevenly", 2, steps=12, zero=zero, overflows=6, evaluates=9)
        ranks = agent.ranks(2)
    assert skipped == [[6], [6]]
    for rank in ranks:
        overflown, evaluated = sorted(iterations_that(Ending.BROKEN, rank))
        assert evaluated == overflown + 3
        found = {record.iteration for record in rank.records}
        assert found - {3} == set(range(4, overflown + 6)) - {overflown, evaluated}


def test_two_engines_without_a_pipeline_make_one_iteration(deepspeed: Nursery) -> None:
    with AgentDouble(deepspeed.socket) as agent:
        deepspeed.run("train_in_turns_without_pipeline", 2, steps=8)
        ranks = agent.ranks(2)
    for rank in ranks:
        assert rank.hello.pipeline.microbatches == 2
        assert set(map(str, told_by(rank).values())) == {str([[kind, 0, m] for m in range(2) for kind in "FB"])}


def test_training_computes_the_same_with_an_agent_and_without(deepspeed: Nursery) -> None:
    alone = deepspeed.run("train_pipeline", 2, steps=4, pipeline=2)
    with AgentDouble(deepspeed.socket) as agent:
        observed = deepspeed.run("train_pipeline", 2, steps=4, pipeline=2)
        agent.ranks(2)
    assert [one["losses"] for one in alone] == [one["losses"] for one in observed]
    assert alone[0]["losses"][0] != alone[0]["losses"][-1]
