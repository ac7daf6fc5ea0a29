"""A node, and what a day brings it."""

from __future__ import annotations

import http.client
import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.agent.peers.kubelet_double import kubelet_double
from tests.agent.soaking import GPUS_OF_A_JOB
from tests.agent.soaking.cluster import Cluster, plan_of, served
from virtual_gpus import model, state
from virtual_gpus.build import library_dir

__all__ = ["Day", "Look", "Node"]

ROOT: Final = Path(__file__).parents[3]
ITERATION_S: Final = 12.0
HOUR_S: Final = 3600.0
COUNTER_PERIOD_MS: Final = 50.0
IN_THE_IMAGE: Final[dict[str, str]] = dict(
    re.findall(r"\b(MALLOC_ARENA_MAX|GLIBC_TUNABLES|OPENBLAS_NUM_THREADS)=(\S+)", (ROOT / "Dockerfile").read_text())
)
"""Of the agent's image: variables that its processes' memory depends on."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a process has."""

    at_s: float
    resident_kib: int
    descriptors: int
    threads: int
    mappings: int

    @classmethod
    def at(cls, pid: int) -> Look:
        """Now."""
        proc = Path("/proc") / str(pid)
        pages = int((proc / "statm").read_text().split()[1])
        return cls(
            time.monotonic(),
            pages * os.sysconf("SC_PAGESIZE") // 1024,
            len(os.listdir(proc / "fd")),
            len(os.listdir(proc / "task")),
            (proc / "maps").read_text().count("\n"),
        )


class Node:
    """A node with eight virtual GPUs, the three parts on it, and the doubles of what it talks with."""

    def __init__(self, pace: float, stack: ExitStack) -> None:
        self.pace, self._stack = pace, stack
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        gpus = self.folder / "gpus"
        options = state.Options(
            gpus=2 * GPUS_OF_A_JOB, node="soak", root_only=False, counter_period_ms=COUNTER_PERIOD_MS
        )
        state.create(gpus, model.parametric({}), options)
        self.uuids = state.uuids(gpus)
        self.environment = {
            **os.environ,
            "VIRTUAL_GPUS_STATE": str(gpus),
            "NVIDIA_VISIBLE_DEVICES": "all",
            "LD_LIBRARY_PATH": str(library_dir()),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'lab'}",
            **IN_THE_IMAGE,
        }
        self.cluster = Cluster(60.0 / pace)
        server = ("--api-server", stack.enter_context(served(self.cluster)))
        self.log = stack.enter_context((self.folder / "log").open("ab"))
        kept = ("--state-dir", str(self.folder / "state"))
        pod_resources = ("--pod-resources", str(self.folder / "kubelet.sock"))
        stack.enter_context(kubelet_double(self.folder / "kubelet.sock", self.cluster.held))
        look = ("--look-for-gpus", str(max(0.2, 30.0 / pace)))
        ports = ("--metrics-address", "127.0.0.1", "--metrics-port", "0", "--health-port", "0")
        self.parts = {
            "warden": self._part("warden", *kept),
            "clocks": self._part("clocks", *kept, "--socket", str(self.folder / "agent.sock")),
            "agent": self._part("agent", *kept, "--node-name", "soak", *server, *pod_resources, *look, *ports),
        }

    def _part(self, part: str, *arguments: str) -> subprocess.Popen[str]:
        return self._start("tests.agent.soaking.part", part, *arguments)

    def _start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=self.environment | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        return process

    def said(self) -> str:
        """By all parts."""
        return (self.folder / "log").read_text()

    def ports(self) -> dict[str, int]:
        """Of metrics and health, once they are served."""
        told = wait(
            lambda: [line for line in self.said().splitlines() if "metrics at port" in line], "metrics are served"
        )
        words = told[0].replace(",", "").split()
        metrics, health = (int(words[at + 1]) for at, word in enumerate(words) if word == "port")
        return {"metrics": metrics, "health": health}

    def begin(self, job: str, gpus: Sequence[str]) -> subprocess.Popen[str]:
        """A job's ranks begin to train."""
        self.cluster.pods[f"pod-{job}"] = job, gpus
        self.cluster.plan(job, plan_of(job, 0))
        socket_path = str(self.folder / "agent.sock")
        arguments = (
            "tests.agent.soaking.ranks",
            socket_path,
            str(ITERATION_S / self.pace),
            str(HOUR_S / 2 / self.pace),
            *gpus,
        )
        self.cluster.fed["jobs"] += 1
        return self._start(*arguments, POD_UID=f"pod-{job}")

    def end(self, job: str, ranks: subprocess.Popen[str], *, killed: bool) -> None:
        """They end."""
        if killed:
            ranks.kill()
        assert ranks.stdin is not None
        assert ranks.stdout is not None
        ranks.stdin.close()
        ranks.wait(60.0)
        ranks.stdout.close()
        self.cluster.plan(job, None)
        del self.cluster.pods[f"pod-{job}"]

    def part_agent_and_clocks(self) -> None:
        """Another agent comes and goes: the clocks take the newest, and the first has to come again."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
            other.connect(str(self.folder / "state/clocks.sock"))
        self.cluster.fed["partings of agent and clocks"] += 1

    def ask(self, ports: dict[str, int]) -> None:
        """As Prometheus and the kubelet's probes do."""
        for port, path in ((ports["metrics"], "/metrics"), (ports["health"], "/healthz"), (ports["health"], "/readyz")):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                connection.request("GET", path)
                connection.getresponse().read()
            finally:
                connection.close()
            self.cluster.fed[path] += 1


def wait(found: Callable[[], Any], what: str, limit_s: float = 120.0) -> Any:
    """Until there is something."""
    deadline_s = time.monotonic() + limit_s
    while not (answer := found()):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"waited in vain until {what}")
        time.sleep(0.05)
    return answer


# the day


class Day:
    """What it brings, and what was seen."""

    def __init__(self, node: Node, hours: float) -> None:
        self.node, self.hours = node, hours
        self.looks: dict[str, list[Look]] = {part: [] for part in node.parts}

    def pass_by(self) -> None:
        """Lives it."""
        node = self.node
        ports = node.ports()
        half = GPUS_OF_A_JOB
        long = node.begin("day", node.uuids[:half])
        short = node.begin("hour-0", node.uuids[half:])
        begun_s = time.monotonic()
        hour, plans = 0, 0
        while (now_h := (time.monotonic() - begun_s) * node.pace / HOUR_S) < self.hours:
            if int(now_h) > hour:
                node.end(f"hour-{hour}", short, killed=bool(hour % 2))
                hour = int(now_h)
                short = node.begin(f"hour-{hour}", node.uuids[half:])
                node.part_agent_and_clocks()
            if int(4 * now_h) > plans:
                plans = int(4 * now_h)
                node.cluster.plan("day", plan_of("day", plans))
                if plans % 4:
                    node.cluster.plan(f"hour-{hour}", plan_of(f"hour-{hour}", plans))
            node.ask(ports)
            if time.monotonic() - self._looked_s() > 0.5:
                self.look()
            time.sleep(max(0.02, 15.0 / node.pace))
        node.end("day", long, killed=False)
        node.end(f"hour-{hour}", short, killed=False)

    def _looked_s(self) -> float:
        looks = self.looks["agent"]
        return looks[-1].at_s if looks else -math.inf

    def look(self) -> None:
        """Looks at all parts."""
        for part, process in self.node.parts.items():
            if process.poll() is not None:
                raise RuntimeError(f"the {part} has ended; it said:\n{self.node.said()[-3000:]}")
            self.looks[part].append(Look.at(process.pid))

    @property
    def fed(self) -> dict[str, int]:
        """How often each thing was done."""
        cluster = self.node.cluster
        return {"iterations of a rank": sum(cluster.iterations.values()), **dict(sorted(cluster.fed.items()))}
