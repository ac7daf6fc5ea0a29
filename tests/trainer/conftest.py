from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

import frameworks
from virtual_gpus.build import library_dir

ROOT = Path(__file__).parents[2]
BOOTSTRAP = ROOT / "agent/joulepath_trainer/bootstrap"


class Nursery:
    """Runs trainings in forked ranks of one process that has imported torch as a training pod would.

    All processes of a test run share that process: torch takes seconds to import.
    """

    def __init__(
        self,
        folder: Path,
        shared: Path,
        scenarios: str = "tests.trainer.scenarios",
        python: str = sys.executable,
    ) -> None:
        """Args:
        folder: Its own.
        shared: That of the whole test run.
        scenarios: The module of what is run.
        python: The interpreter that runs it.
        """
        self._scenarios, self._python = scenarios, python
        self.socket = folder / "agent.sock"
        self._folder, self._count = folder, 0
        self.errors = folder / "stderr"
        self._process: subprocess.Popen[bytes] | None = None
        with (shared / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            meeting = shared / f"{zlib.crc32(f'{python} {scenarios}'.encode()):08x}.sock"
            lines = self._meet(meeting) or self._start(meeting)
        assert lines is not None, "the nursery doesn't start"
        self._lines = lines

    def _start(self, path: Path) -> TextIO | None:
        """It is handed a socket that listens already, so that nobody can come too early or when it has died."""
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            environment = {
                **os.environ,
                **frameworks.variables(self._python),
                "PYTHONPATH": os.pathsep.join(map(str, (BOOTSTRAP, ROOT / "agent", ROOT / "lab"))),
                "JOULEPATH_SOCKET": self.socket.name,
                "LD_LIBRARY_PATH": str(library_dir()),
            }
            fd = listener.fileno()
            command = [self._python, "-m", "tests.trainer.nursery", str(fd), self._scenarios]
            self._process = subprocess.Popen(command, env=environment, cwd=ROOT, pass_fds=(fd,))
        return self._meet(path)

    def _meet(self, path: Path) -> TextIO | None:
        """None where nobody serves, or the last one that did is about to end."""
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(path))
                client.sendall(f"{self._folder}\n".encode())
                lines: TextIO = client.makefile("rw")
                return lines if lines.readline() == "ready\n" else None
            except OSError:
                return None

    def run(self, scenario: str, world: int = 4, **arguments: Any) -> list[Any]:
        """Runs a function of `scenarios` in every rank; returns their results."""
        self._count += 1
        order = {"scenario": scenario, "world": world, "store": str(self._folder / f"store{self._count}")}
        print(json.dumps({**order, "arguments": arguments}), file=self._lines, flush=True)
        answers = json.loads(self._lines.readline())
        assert [answer.get("error") for answer in answers] == [None] * world
        return [answer["result"] for answer in answers]

    def said(self, action: Callable[[], object]) -> str:
        """What the ranks write to their standard error during the action."""
        before = self.errors.stat().st_size
        action()
        return self.errors.read_bytes()[before:].decode()

    def close(self) -> None:
        """The one that started the process waits for it: it ends when nobody needs it any more."""
        self._lines.close()
        if self._process is not None:
            self._process.wait()


def begun(folders: pytest.TempPathFactory, *options: str) -> Iterator[Nursery]:
    """A nursery with these scenarios and interpreter, shared by all processes of the test run."""
    folder = folders.mktemp("nursery")
    # xdist gives each of its processes a folder in the one of the run.
    of_run = "PYTEST_XDIST_WORKER" in os.environ
    started = Nursery(folder, folders.getbasetemp().parent if of_run else folder, *options)
    yield started
    started.close()


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    yield from begun(tmp_path_factory)
