"""A Python too old for the trainer says so once it imports torch, and nothing before or else."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from joulepath_trainer.wire.messages import OldPython
from joulepath_trainer.wire.protocol import MAX_MESSAGE_BYTES
from tests.trainer.conftest import BOOTSTRAP
from tests.trainer.pythons import NEEDED, PYTHONS, Python, found

QUICK = ("2.7", "3.11")


@pytest.fixture(params=[one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in PYTHONS])
def python(request: pytest.FixtureRequest) -> Python:
    return found(request.param)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen()
        listener.setblocking(False)
        yield listener


def run(python: Python, folder: Path, code: str) -> None:
    """In a process with a torch that imports two of its modules, as every torch does many."""
    torch = folder / "site" / "torch"
    torch.mkdir(parents=True, exist_ok=True)
    (torch / "__init__.py").write_text("import torch.version, torch.optim")
    for name in ("version", "optim", "late"):
        (torch / f"{name}.py").touch()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{BOOTSTRAP}:{folder}/site"}
    environment |= {"JOULEPATH_SOCKET": str(folder / "agent.sock"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [python.path, "-c", code], env=environment, cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("", "")


def said(agent: socket.socket) -> list[bytes]:
    """The first message of each connection."""
    messages = []
    while True:
        try:
            with agent.accept()[0] as connection:
                messages.append(connection.recv(MAX_MESSAGE_BYTES))
        except BlockingIOError:
            return messages


def test_what_imports_torch_tells_its_version_once(python: Python, agent: socket.socket, tmp_path: Path) -> None:
    run(python, tmp_path, "import torch, torch.late, json")
    needed = ".".join(map(str, NEEDED))
    told = [OldPython(".".join(map(str, python.version)), needed)] if python.is_old else []
    assert [OldPython.decode(message) for message in said(agent)] == told


def test_what_imports_no_torch_tells_nothing(python: Python, agent: socket.socket, tmp_path: Path) -> None:
    run(python, tmp_path, "import json, socket, email")
    without = "import sys\nsys.path = [one for one in sys.path if not one.endswith('/site')]\n"
    run(python, tmp_path, without + "try: import torch.optim\nexcept ImportError: pass")
    assert said(agent) == []


def test_an_agent_that_comes_later_is_told_at_torchs_next_module(python: Python, tmp_path: Path) -> None:
    code = f"""
import torch, socket
agent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
agent.bind({str(tmp_path / "agent.sock")!r})
agent.listen(1)
agent.setblocking(False)
import torch.late
try:
    told = agent.accept()[0].recv(100)
except Exception:
    told = b""
assert told.startswith(b"JPV1 ") == {python.is_old}, told
"""
    run(python, tmp_path, code)
