"""A framework that isn't as its adapter knows it is seen less of, and that is told with its version."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from agent_double import AgentDouble
from joulepath_trainer.frameworks import deepspeed, megatron, pipelining
from joulepath_trainer.frameworks.check import Check, Wrapped
from joulepath_trainer.frameworks.passes import Passes
from joulepath_trainer.frameworks.steps import Steps
from tests.trainer.conftest import Nursery


class Stage:
    """As an adapter may know it."""

    def forward(self, chunk: int, *args: object) -> None: ...

    def backward(self, chunk: int, loss: object = None, *, whole: bool = True) -> None: ...

    size = 3


@pytest.mark.parametrize(
    ("wrapped", "amiss"),
    [
        (Wrapped("Stage.forward", ("chunk",)), ""),
        (Wrapped("Stage.backward", ("chunk", "loss"), ("whole",)), ""),
        (Wrapped("Stage.forward", ("number",)), "parameters (chunk, args), of which (number) were expected"),
        (Wrapped("Stage.backward", ("loss",)), "(loss) were expected"),
        (Wrapped("Stage.backward", (), ("full",)), "(full) were expected"),
        (Wrapped("Stage.sideward"), "there is no Stage.sideward"),
        (Wrapped("Other.forward"), "there is no Other.forward"),
        (Wrapped("Stage.size"), "there is no Stage.size"),
    ],
)
def test_what_is_there_is_compared_with_what_is_known(wrapped: Wrapped, amiss: str) -> None:
    found = wrapped.amiss(SimpleNamespace(Stage=Stage))
    assert (amiss in found) if amiss else (found == "")


def test_what_is_lacked_is_told_with_the_version_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    check, module = Check(), ModuleType("framework")
    monkeypatch.setitem(__import__("sys").modules, "framework", module)
    assert check.passes("framework", SimpleNamespace(Stage=Stage), [Wrapped("Stage.forward")], "nothing")
    assert check.told() == ("framework of an unknown version", "")
    module.__version__ = "9.1"  # type: ignore[attr-defined]
    assert not check.passes("framework", SimpleNamespace(Stage=Stage), [Wrapped("Stage.run")], "only iterations")
    assert check.told() == ("framework 9.1", "framework 9.1 isn't as known (there is no Stage.run): only iterations")


@pytest.mark.parametrize("adapter", [pipelining.PipelineSteps, megatron.MegatronSteps, deepspeed.DeepSpeedSteps])
def test_a_module_with_nothing_of_what_is_known_is_left_as_it_is(adapter: Any) -> None:
    check, module = Check(), SimpleNamespace(other=3)
    steps = Steps(None, lambda: None)  # type: ignore[arg-type]
    passes = (Passes(None),) if adapter is megatron.MegatronSteps else ()  # type: ignore[arg-type]
    made = adapter(steps, *passes, check)
    for name in ("observe_stages", "observe_schedules", "observe_engine"):
        if hasattr(made, name):
            getattr(made, name)(module)
    assert vars(module) == {"other": 3}
    assert "isn't as known" in check.told()[1]


@pytest.mark.parametrize("lost", ["computations", "schedules"])
def test_a_torch_whose_pipelines_are_other_ones_is_told_as_far_as_it_is_known(nursery: Nursery, lost: str) -> None:
    with AgentDouble(nursery.socket) as agent:
        nursery.run("train_by_another_torch", 2, steps=8, lost=lost)
        ranks = agent.ranks(2)
    for rank in ranks:
        assert rank.hello.framework.startswith("torch 2.")
        assert rank.hello.lacks.startswith(f"{rank.hello.framework} isn't as known (")
        assert rank.records
        assert not any(record.spans for record in rank.records)
        whose = "Schedule1F1B" if lost == "computations" else "IterationsOnly"
        assert rank.hello.pipeline.schedule == whose
