"""The agent as a process of its own on virtual GPUs, and training processes beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from joulepath_crds import NodeReportStatus, RankReport
from virtual_gpus.fixtures import VirtualGpus

__all__ = ["LocalAgent", "Process", "Room", "wait_until"]

HERE = Path(__file__).parent
PATIENCE_S = 60.0


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Waits until something is true; fails the test after a long time."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


class Process:
    """A process with JSON lines on its standard output; ended with the test."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        self.pid = self._process.pid

    def say(self, what: object) -> None:
        """Writes a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        """Reads a line; None at the end."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else None

    def send(self, sent: signal.Signals) -> None:
        """Sends a signal to this process alone."""
        self._process.send_signal(sent)

    def wait(self) -> int:
        """Its exit status."""
        return self._process.wait(PATIENCE_S)

    def end(self) -> None:
        """Kills it and whatever it forked."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


class LocalAgent(Process):
    """The agent of ``local_agent.py``."""

    port = 0
    """Of its HTTP server."""

    def plans(self, *plans: dict[str, Any]) -> None:
        """Says which plans there are."""
        self.say({"plans": list(plans)})

    def report(self) -> NodeReportStatus:
        """What it reports."""
        self.say({"report": True})
        return NodeReportStatus.from_api(self.hear())

    def counts(self) -> dict[str, Any]:
        """What it has counted."""
        self.say({"counts": True})
        return dict(self.hear())

    def rank(self, rank: int = 0) -> RankReport | None:
        """One rank of its report."""
        return next((r for job in self.report().jobs for r in job.ranks if r.rank == rank), None)


class Room:
    """A node: virtual GPUs, an agent, training processes."""

    def __init__(self, gpus: VirtualGpus, folder: Path, stack: ExitStack) -> None:
        self.gpus = gpus
        self.socket = folder / "agent.sock"
        self.state_dir = folder / "state"
        self._stack = stack

    def agent(self, pods: dict[str, list[str]] | None = None) -> LocalAgent:
        """Starts an agent; pod "a" has all GPUs unless told otherwise."""
        pods = pods or {"a": self.gpus.uuids}
        command = [sys.executable, str(HERE / "local_agent.py"), "--socket", str(self.socket)]
        command += ["--state-dir", str(self.state_dir)]
        for uid, gpus in pods.items():
            command += ["--pod", f"{uid}={','.join(gpus)}"]
        started = LocalAgent(command, self.gpus.environment)
        self._stack.callback(started.end)
        started.port = started.hear()["port"]
        return started

    def peer(self, pod: str = "a", **options: object) -> Process:
        """Starts a training process."""
        return self._start(pod, "peer.py", str(self.socket), json.dumps(options))

    def hostile(self, pod: str, what: str, gpu: int = 0) -> Process:
        """Starts a process that means no good: `bytes` or `rank`."""
        return self._start(pod, "hostile.py", str(self.socket), what, self.gpus.uuids[gpu])

    def _start(self, pod: str, script: str, *arguments: str) -> Process:
        command = [sys.executable, str(HERE / script), *arguments]
        started = Process(command, {**self.gpus.environment, "POD_UID": pod})
        self._stack.callback(started.end)
        return started

    def clock(self, gpu: int = 0) -> int:
        """The clock that a GPU is locked to once its pending changes are in force; 0 is none."""
        return self.gpus.look(gpu).next_high_mhz
