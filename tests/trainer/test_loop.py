"""Loops that tell of themselves: what is told wrongly costs the observation, and nothing else."""

from __future__ import annotations

import importlib
import logging
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import joulepath_trainer as joulepath
from agent_double import AgentDouble
from joulepath_trainer import hook, loop
from tests.trainer.conftest import BOOTSTRAP, ROOT


@pytest.fixture
def observed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of an agent's socket, for a process as the hook leaves it."""
    path = tmp_path / "agent.sock"
    monkeypatch.setattr(hook, "_installed", [hook._OnDemand(str(path))])
    monkeypatch.setattr(loop, "_said", set())
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    return path


def train(iterations: int, *names: tuple[Any, Any, Any]) -> None:
    for _ in range(iterations):
        with joulepath.iteration():
            for kind, stage, microbatch in names:
                with joulepath.instruction(kind, stage=stage, microbatch=microbatch):
                    pass


def test_instructions_are_told_in_their_order(observed: Path) -> None:
    with AgentDouble(observed, hang_up_after=3) as agent:
        joulepath.describe(stages=[0, 3], stage_count=4, microbatches=2, data_parallel=(1, 2), tensor_parallel=(0, 4))
        while not agent.gone:
            train(1, ("F", 0, 0), ("F", 3, 0), ("I", 3, 0), ("W", 3, 0))
        (rank,) = agent.ranks(1)
    assert (rank.hello.data, rank.hello.data_parallel, rank.hello.tensor_parallel) == (1, 2, 4)
    assert rank.hello.pipeline.stages == (0, 3)
    for record in rank.records:
        assert [(one.kind, one.stage) for one in record.spans] == [("F", 0), ("F", 3), ("I", 3), ("W", 3)]


def test_an_instruction_in_another_is_a_part_of_it(observed: Path) -> None:
    with AgentDouble(observed, hang_up_after=3) as agent:
        joulepath.describe()
        while not agent.gone:
            with joulepath.iteration(), joulepath.iteration():
                for number in (0, 1):
                    with joulepath.instruction("F", microbatch=number), joulepath.instruction("B", microbatch=number):
                        pass
        (rank,) = agent.ranks(1)
    assert all([one.kind for one in record.spans] == ["F", "F"] for record in rank.records)


def test_an_iteration_that_fails_is_not_told_and_its_exception_is_the_loop_s(observed: Path) -> None:
    with AgentDouble(observed, hang_up_after=4) as agent:
        joulepath.describe()
        number = 0
        while not agent.gone:
            number += 1
            fails = pytest.raises(KeyError, match="its own") if number == 3 else nullcontext()
            with fails, joulepath.iteration(), joulepath.instruction("F"):
                if number == 3:
                    raise KeyError("its own")
        (rank,) = agent.ranks(1)
    assert 2 not in [record.iteration for record in rank.records]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"stages": [4], "stage_count": 4}, "stages must name stages below 4"),
        ({"microbatches": 0}, "microbatches must be a number from 1"),
        ({"stage_count": "two"}, "stage_count must be a number"),
        ({"ranks": [7]}, "ranks must have this rank, 0"),
        ({"stages": 3}, "can't be"),
        ({"data_parallel": (2, 2)}, "data_parallel and tensor_parallel"),
    ],
)
def test_what_cannot_be_is_said_once_and_not_observed(
    observed: Path, caplog: pytest.LogCaptureFixture, arguments: dict[str, Any], why: str
) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        joulepath.describe(**arguments)
        train(2, ("F", 0, 0))
    assert [why in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize(
    "name", [("G", 0, 0), ("FB", 0, 0), (None, 0, 0), ("F", -1, 0), ("F", 0, 70000), ("F", "0", 0)]
)
def test_an_instruction_that_cannot_be_is_said_once_and_costs_its_iterations(
    observed: Path, caplog: pytest.LogCaptureFixture, name: tuple[Any, Any, Any]
) -> None:
    caplog.set_level(logging.WARNING)
    with AgentDouble(observed, hang_up_after=2) as agent:
        joulepath.describe()
        train(3, ("F", 0, 0), name)
        while not agent.gone:
            train(1, ("F", 0, 0))
        (rank,) = agent.ranks(1)
    assert min(record.iteration for record in rank.records) >= 3
    assert caplog.text.count("iterations with it aren't observed") == 1


def test_without_the_hook_nothing_happens_whatever_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "_installed", [])
    joulepath.describe(stages=[-1])
    train(2, ("F", 0, 0), ("?", None, object()))


def test_a_process_s_start_loads_nothing_of_it() -> None:
    code = "import sys; print([name for name in sys.modules if name.startswith('joulepath')])"
    environment = {**os.environ, "PYTHONPATH": str(BOOTSTRAP), "JOULEPATH_SOCKET": "/nowhere"}
    loaded = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert "joulepath_trainer.hook" in loaded
    assert "joulepath_trainer.loop" not in loaded
    code = "import joulepath_trainer as j; j.describe(); print(j.__file__)"
    found = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True, cwd="/")
    assert Path(found.strip()) == ROOT / "agent/joulepath_trainer/__init__.py"


def test_other_names_are_missing_as_in_any_module() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'step'"):
        importlib.import_module("joulepath_trainer").step  # noqa: B018


@pytest.mark.slow
@pytest.mark.parametrize("injected", [False, True])
def test_the_documented_example_trains_and_is_told(tmp_path: Path, injected: bool) -> None:
    match = re.search(r"```python\n(.*?)```", (ROOT / "docs/frameworks.md").read_text(), re.DOTALL)
    assert match is not None
    (tmp_path / "loop.py").write_text(match[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    if injected:
        environment |= {"PYTHONPATH": str(BOOTSTRAP), "JOULEPATH_SOCKET": str(tmp_path / "agent.sock")}
    else:  # the tests' own environment has the trainer
        (tmp_path / "joulepath_trainer.py").write_text("raise ImportError")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "loop.py"]
    with AgentDouble(tmp_path / "agent.sock") as agent:
        subprocess.run(torchrun, env=environment, cwd=tmp_path, check=True)
        ranks = agent.ranks(2) if injected else []
    for number, rank in enumerate(ranks):
        assert rank.hello.pipeline.stages == (number,)
        for record in rank.records:
            told = [(one.kind, one.microbatch) for one in record.spans]
            assert told == [(kind, microbatch) for kind in "FB" for microbatch in range(4)]
        assert len(rank.records) > 15
