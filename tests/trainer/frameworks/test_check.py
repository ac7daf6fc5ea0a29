"""A framework that isn't as its adapter knows it is seen less of, and that is told with its version."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from agent_double import AgentDouble
from joulepath_trainer.frameworks import deepspeed, megatron, pipelining
from joulepath_trainer.frameworks.check import Check, Wrapped
from joulepath_trainer.frameworks.passes import Passes
from joulepath_trainer.frameworks.rounds import Skips
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


def test_a_megatron_whose_combined_step_is_another_is_seen_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    schedules, combined = ModuleType("schedules"), ModuleType("combined_1f1b")

    def iterations(*, model: object, num_microbatches: int, forward_only: bool = False) -> None: ...

    def forward_step(forward_step_func: object, data_iterator: object, model: object) -> None: ...

    def backward_step(input_tensor: object, output_tensor: object) -> None: ...

    def combined_forward_backward_step(forward_step_func: object, *, pre_forward: object) -> None: ...

    for way in ("without", "with"):
        setattr(schedules, f"forward_backward_pipelining_{way}_interleaving", iterations)
    schedules.__dict__.update(forward_step=forward_step, backward_step=backward_step)
    combined.__dict__.update(combined_forward_backward_step=combined_forward_backward_step)
    monkeypatch.setitem(sys.modules, "megatron.core.pipeline_parallel.combined_1f1b", combined)
    check = Check()
    steps = Steps(None, Skips(), lambda: None)  # type: ignore[arg-type]
    megatron.MegatronSteps(steps, Passes(None), check).observe_schedules(schedules)  # type: ignore[arg-type]
    assert "combined_forward_backward_step has parameters" in check.told()[1]
    assert combined.__dict__["combined_forward_backward_step"] is combined_forward_backward_step
    assert schedules.__dict__["forward_step"] is not forward_step


@pytest.mark.parametrize("adapter", [pipelining.PipelineSteps, megatron.MegatronSteps, deepspeed.DeepSpeedSteps])
def test_a_module_with_nothing_of_what_is_known_is_left_as_it_is(adapter: Any) -> None:
    check, module = Check(), SimpleNamespace(other=3)
    steps = Steps(None, Skips(), lambda: None)  # type: ignore[arg-type]
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
