from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from virtual_gpus.build import library_dir

HERE = Path(__file__).parent
BOOTSTRAP = HERE.parents[1] / "agent/joulepath_trainer/bootstrap"


class Nursery:
    """Runs trainings in forked ranks of one process that has imported torch as a training pod would."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "agent.sock"
        self._folder, self._count = folder, 0
        environment = {
            **os.environ,
            "PYTHONPATH": str(BOOTSTRAP),
            "JOULEPATH_SOCKET": str(self.socket),
            "LD_LIBRARY_PATH": str(library_dir()),
        }
        self.errors = folder / "stderr"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "nursery.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                text=True,
            )
        assert self._line() == "ready"

    def run(self, scenario: str, world: int = 4, **arguments: Any) -> list[Any]:
        """Runs a function of `scenarios` in every rank; returns their results."""
        self._count += 1
        order = {"scenario": scenario, "world": world, "store": str(self._folder / f"store{self._count}")}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({**order, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        answers = json.loads(self._line())
        assert [answer.get("error") for answer in answers] == [None] * world
        return [answer["result"] for answer in answers]

    def said(self, action: Callable[[], object]) -> str:
        """What the ranks write to their standard error during the action."""
        before = self.errors.stat().st_size
        action()
        return self.errors.read_bytes()[before:].decode()

    def close(self) -> None:
        self.process.communicate(timeout=20)

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.errors.read_text()
        return line.strip()


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    started = Nursery(tmp_path_factory.mktemp("nursery"))
    yield started
    started.close()
