"""Trainings without a pipeline."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from agent_double import AgentDouble
from joulepath_trainer.frameworks.optimizers import OptimizerSteps
from joulepath_trainer.frameworks.passes import Passes
from joulepath_trainer.frameworks.rounds import Skips
from joulepath_trainer.observer import Observer
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


class Restarts:
    """Stands for the observer, and counts how often another thing is told."""

    off = False

    def __init__(self) -> None:
        self.count = 0

    def restart(self) -> None:
        self.count += 1

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class Optimizer:
    """Of parameters on a CPU."""

    def __init__(self) -> None:
        self.param_groups = [{"params": [SimpleNamespace(device="cpu")]}]


def test_an_optimizer_that_takes_the_place_of_the_first_is_the_one_that_counts_from_then_on() -> None:
    """As where one part of a model is trained, then another one, and both are kept."""
    restarts = Restarts()
    observer = cast(Observer, restarts)
    steps = OptimizerSteps(observer, Passes(observer), Skips())
    hooks: list[Any] = []
    steps.observe(cast(ModuleType, SimpleNamespace(register_optimizer_step_post_hook=hooks.append)))
    first, *others = [Optimizer() for _ in range(10)]

    def train(*optimizers: Optimizer, iterations: int) -> int:
        for _ in range(iterations):
            for optimizer in optimizers:
                hooks[0](optimizer, (), {})
        return restarts.count

    assert train(first, *others, *others, iterations=100) == 0, "each of many steps, one of them counts"
    assert train(others[0], iterations=30) == 0, "it may be that of a GAN"
    assert train(others[0], iterations=100) == 1
    assert train(first, *[others[0]] * 60, iterations=50) == 1
    assert train(*[first] * 60, others[0], iterations=50) == 1, "more is waited for"


def test_an_optimizer_that_steps_more_often_than_its_pipeline_takes_over_a_few_times_at_most() -> None:
    restarts = Restarts()
    observer = cast(Observer, restarts)
    steps = OptimizerSteps(observer, Passes(observer), Skips())
    hooks: list[Any] = []
    steps.observe(cast(ModuleType, SimpleNamespace(register_optimizer_step_post_hook=hooks.append)))
    optimizer = Optimizer()
    for _ in range(50):
        steps.stand_aside()
        for _ in range(30):
            hooks[0](optimizer, (), {})
    taken = restarts.count
    assert 1 <= taken <= 6
    for _ in range(500):
        hooks[0](optimizer, (), {})
    assert restarts.count == taken + 1, "the pipeline has become a graph, and the optimizer's steps count"
