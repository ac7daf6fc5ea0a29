"""Trainings without a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_double import AgentDouble
from joulepath_trainer.wire.page import MarkerEvent

if TYPE_CHECKING:
    from tests.trainer.conftest import Nursery


def test_an_iteration_lies_between_two_steps_of_the_first_optimizer(nursery: Nursery) -> None:
    with AgentDouble(nursery.socket) as agent:
        nursery.run("train_without_pipeline", 2, steps=8)
        ranks = agent.ranks(2)
    for number, rank in enumerate(ranks):
        first = 3 + number  # rank 1 learns the attempt's number a step later
        assert [record.iteration for record in rank.records] == list(range(first, 8))
        sides = (MarkerEvent.STEP_BEGIN, MarkerEvent.STEP_END)
        events = [(entry.iteration, entry.event) for entry in rank.entries() if entry.event in sides]
        pairs = [(n, event) for n in range(first, 9) for event in sides]
        assert events == pairs[:-1]


def test_a_pipeline_that_comes_after_a_warm_up_without_one_is_announced_and_counted_from_its_start(
    nursery: Nursery,
) -> None:
    with AgentDouble(nursery.socket) as agent:
        nursery.run("warm_up_without_pipeline", 2, steps=7)
        ranks = agent.ranks(4)
    assert sorted(rank.hello.pipeline.stage_count for rank in ranks) == [1, 1, 2, 2]
    for rank in ranks:
        if rank.hello.pipeline.stage_count == 2:
            assert rank.records[-1].iteration == 6
