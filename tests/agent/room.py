"""The agent as a process of its own on virtual GPUs, and training processes beside it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from joulepath_crds import NodeReportStatus, RankReport
from virtual_gpus.build import library_dir
from virtual_gpus.fixtures import VirtualGpus

__all__ = ["PATIENCE_S", "Launcher", "LocalAgent", "Process", "Room", "RunningWarden", "wait_until"]

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Waits until something is true; fails the test after a long time."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


class Launcher:
    """The process of `launcher.py`."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            # The loader reads the library path at a program's start: it can't be set for what is forked.
            environment = {
                **os.environ,
                "LD_LIBRARY_PATH": str(library_dir()),
                "PYTHONPATH": str(ROOT),
                "OPENBLAS_NUM_THREADS": "1",
            }
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.agent.launcher", str(other.fileno())],
                env=environment,
                pass_fds=(other.fileno(),),
            )

    def start(self, program: str, arguments: Sequence[str], environment: dict[str, str], fds: Sequence[int]) -> int:
        """Starts a module with these standard descriptors, in a session of its own; its pid."""
        order = {"program": program, "arguments": list(arguments), "environment": environment}
        socket.send_fds(self._socket, [json.dumps(order).encode()], fds)
        return int(json.loads(self._socket.recv(4096))["pid"])

    def status(self, pid: int) -> int | None:
        """The exit status, once; None while it runs."""
        self._socket.send(json.dumps({"wait": pid}).encode())
        status: int | None = json.loads(self._socket.recv(4096))["status"]
        return status

    def close(self) -> None:
        """Ends it."""
        self._socket.close()
        self._process.wait(PATIENCE_S)


class Process:
    """A process with JSON lines on its standard output; ended with the test."""

    def __init__(
        self,
        launcher: Launcher,
        program: str,
        arguments: Sequence[str],
        environment: dict[str, str],
        error_output: int = 2,
    ) -> None:
        (input_end, write), (read, output_end) = os.pipe(), os.pipe()
        self.pid = launcher.start(program, arguments, environment, (input_end, output_end, error_output))
        for given in (input_end, output_end):
            os.close(given)
        self._launcher = launcher
        self._status: int | None = None
        self._write, self._read = os.fdopen(write, "w"), os.fdopen(read)

    def say(self, what: object) -> None:
        """Writes a line."""
        self._write.write(json.dumps(what) + "\n")
        self._write.flush()

    def hear(self) -> Any:
        """Reads a line; None at the end."""
        line = self._read.readline()
        return json.loads(line) if line else None

    def send(self, sent: signal.Signals) -> None:
        """Sends a signal to this process alone."""
        os.kill(self.pid, sent)

    def wait(self) -> int:
        """Its exit status."""
        wait_until(self.ended, f"process {self.pid} has ended")
        assert self._status is not None
        return self._status

    def end(self) -> None:
        """Kills it and whatever it forked."""
        for kill in (os.kill, os.killpg):  # a process that has just been forked leads no group yet
            with suppress(ProcessLookupError):
                kill(self.pid, signal.SIGKILL)
        self.wait()
        for stream in (self._write, self._read):
            with suppress(BrokenPipeError):
                stream.close()

    def ended(self) -> bool:
        """Whether it has."""
        if self._status is None:
            self._status = self._launcher.status(self.pid)
        return self._status is not None


class LocalAgent(Process):
    """The agent of `local_agent.py`, and the clocks that were started with it."""

    clocks: Process
    port = 0
    """Of its metrics."""
    health_port = 0

    def resident_bytes(self) -> int:
        """The memory that it has."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")

    def plans(self, *plans: dict[str, Any]) -> None:
        """Says which plans there are."""
        self.say({"plans": list(plans)})

    def policy(self, **spec: Any) -> None:
        """Says what the EnergyPolicy is."""
        self.say({"policy": spec})

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


class RunningWarden(Process):
    """The warden of a room."""

    log: Path
    """What it says."""

    def said(self, what: str) -> bool:
        """Whether that was among it."""
        return what in self.log.read_text()


class Room:
    """A node: virtual GPUs, a warden, an agent, training processes."""

    def __init__(self, launcher: Launcher, gpus: VirtualGpus, folder: Path, stack: ExitStack) -> None:
        self.gpus = gpus
        self.socket = folder / "agent.sock"
        self.state_dir = folder / "state"
        self.log = folder / "warden.log"
        """What all its wardens say."""
        self._launcher, self._stack = launcher, stack
        self.has_warden = False
        """Whether one was started: an agent is given one else."""

    @property
    def journal(self) -> Path:
        """The warden's journal."""
        return self.state_dir / "locked-gpus"

    def named(self) -> list[str]:
        """What the journal names."""
        return self.journal.read_text().split("\n")[:-2]

    def warden(self, *arguments: str, waits: bool = True, **environment: str) -> RunningWarden:
        """Starts a warden, and waits until it leases clocks."""
        self.has_warden = True
        began = self.log.read_text() if self.log.exists() else ""
        command = ["--state-dir", str(self.state_dir), *arguments]
        everything = {**self.gpus.environment, **environment}
        with self.log.open("ab") as log:
            started = RunningWarden(self._launcher, "joulepath_warden.__main__", command, everything, log.fileno())
        started.log = self.log
        self._stack.callback(started.end)
        if waits:
            wait_until(lambda: "clocks are leased at" in self.log.read_text()[len(began) :], "clocks are leased")
        return started

    def agent(self, pods: dict[str, list[str]] | None = None, log: int = 2, *options: str) -> LocalAgent:
        """Starts clocks and an agent, and a warden unless one was started; pod "a" has all GPUs unless told otherwise.

        `options` are the clocks'.
        """
        if not self.has_warden:
            self.warden()
        clocks = self.begin_clocks(self.socket, log, *options)
        assert clocks.hear() == {}
        return self.agent_of(clocks, pods, log)

    def agent_of(self, clocks: Process, pods: dict[str, list[str]] | None = None, log: int = 2) -> LocalAgent:
        """Starts an agent of clocks that are there, and waits until they know each other."""
        started = self.begin_agent(pods, log)
        ports = started.hear()
        started.clocks, started.port, started.health_port = clocks, ports["port"], ports["healthPort"]
        wait_until(lambda: bool(started.report().gpus), "the clocks have told the agent of their GPUs")
        return started

    def begin_agent(self, pods: dict[str, list[str]] | None = None, log: int = 2) -> LocalAgent:
        """Starts an agent, and doesn't wait for it."""
        arguments = ["--state-dir", str(self.state_dir)]
        for uid, gpus in (pods or {"a": self.gpus.uuids}).items():
            arguments += ["--pod", f"{uid}={','.join(gpus)}"]
        started = LocalAgent(self._launcher, "local_agent", arguments, self.gpus.environment, log)
        self._stack.callback(started.end)
        return started

    def begin_clocks(self, path: Path, log: int = 2, *options: str) -> Process:
        """Starts clocks with their socket there, and doesn't wait for them."""
        arguments = ["--socket", str(path), "--state-dir", str(self.state_dir), *options]
        started = Process(self._launcher, "local_clocks", arguments, self.gpus.environment, log)
        self._stack.callback(started.end)
        return started

    def peer(self, pod: str = "a", door: Path | None = None, **options: object) -> Process:
        """Starts a training process, which comes by the socket for all pods unless told otherwise."""
        return self._start(pod, "tests.agent.peer", str(door or self.socket), json.dumps(options))

    def hostile(self, pod: str, what: str, gpu: int = 0) -> Process:
        """Starts a process that means no good: `bytes`, `rank`, `wide`, `deep` or `chatty`."""
        return self._start(pod, "tests.agent.hostile", str(self.socket), what, self.gpus.uuids[gpu])

    def _start(self, pod: str, program: str, *arguments: str) -> Process:
        started = Process(self._launcher, program, arguments, {**self.gpus.environment, "POD_UID": pod})
        self._stack.callback(started.end)
        return started

    def clock(self, gpu: int = 0) -> int:
        """The clock that a GPU is locked to once its pending changes are in force; 0 is none."""
        return self.gpus.look(gpu).next_high_mhz
