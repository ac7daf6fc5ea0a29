"""A pod whose Python is too old for the trainer is reported, whoever of the node starts anew."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from joulepath_crds import OldPythonReport
from joulepath_trainer.wire.messages import OldPython
from tests.agent.peer import connect_as_pod
from tests.agent.room import LocalAgent, Room, wait_until
from tests.trainer.conftest import BOOTSTRAP
from tests.trainer.pythons import PYTHONS, available


def told(agent: LocalAgent) -> set[str]:
    return {one.pod_uid for one in agent.report().old_pythons}


def test_a_process_that_imports_torch_with_an_old_python_is_reported_by_its_pod(
    room: Callable[..., Room], tmp_path: Path
) -> None:
    made = room(gpus=1)
    agent = made.agent()
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("import torch.optim")
    (tmp_path / "torch/optim.py").touch()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{BOOTSTRAP}:{tmp_path}", "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"JOULEPATH_SOCKET": str(made.socket)}
    for name in filter(available().get, PYTHONS):
        command = [available()[name].path, "-c", "import torch, sys; sys.stdin.read()"]
        process = subprocess.Popen(command, env=environment | {"POD_UID": name}, stdin=subprocess.PIPE)
        if available()[name].is_old:
            wait_until(lambda uid=name: uid in told(agent), f"Python {name} is reported")  # type: ignore[misc]
        process.communicate()
    old = {(name, ".".join(map(str, one.version))) for name, one in available().items() if one.is_old}
    assert {(one.pod_uid, one.version) for one in agent.report().old_pythons} == old
    assert not agent.report().jobs


def test_it_stays_known_while_either_of_clocks_and_agent_lives(
    room: Callable[..., Room], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = room(gpus=1)
    agent = made.agent()
    say(made, monkeypatch, 3)
    wait_until(lambda: len(told(agent)) == 3, "they are reported")
    assert OldPythonReport(pod_uid="pod0", version="3.8", needed="3.10") in agent.report().old_pythons
    agent.send(signal.SIGKILL)
    agent.wait()
    successor = made.agent_of(agent.clocks)
    wait_until(lambda: len(told(successor)) == 3, "an agent that comes is told")
    agent.clocks.send(signal.SIGKILL)
    agent.clocks.wait()
    assert made.begin_clocks(made.socket).hear() == {}
    wait_until(lambda: bool(successor.counts()), "the agent goes on")
    assert len(told(successor)) == 3


def test_of_many_pods_the_last_ones_are_known(room: Callable[..., Room], monkeypatch: pytest.MonkeyPatch) -> None:
    made = room(gpus=1)
    agent = made.agent()
    say(made, monkeypatch, 100)
    wait_until(lambda: told(agent) == {f"pod{number}" for number in range(36, 100)}, "64 are reported")


def say(made: Room, monkeypatch: pytest.MonkeyPatch, pods: int) -> None:
    """That so many pods have an old Python, one after the other."""
    for number in range(pods):
        monkeypatch.setenv("POD_UID", f"pod{number}")
        with connect_as_pod(str(made.socket)) as connection:
            connection.send(OldPython("3.8", "3.10").encode())
            assert connection.recv(1) == b""
