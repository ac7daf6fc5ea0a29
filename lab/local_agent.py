"""The agent without a cluster: pods come from the command line, plans and questions from standard input.

It locks clocks only while a `joulepath-warden` runs on the same state folder.

    python local_agent.py --socket S --state-dir D [--pod UID=GPU,GPU ...] [--on-foreign-clock yield]
        [--plans-live SECONDS]
    > {"plans": [JobPlan spec, ...]}          every plan there is, for job-uid's of namespace "default"
    > {"report": true}                        answered with one line: the NodeReport's status
    > {"counts": true}                        answered with lease ends, refusals and orders by GPU
    > {"shared": [GPU, ...]}                  GPUs that are given to a second pod as well, all of them

A peer says which pod it stands for by the address of its socket, "\\0POD/...", or with POD_UID in its environment,
which is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from joulepath_agent.agent import Agent, Paths
from joulepath_agent.gpus.foreign import OnForeignClock
from joulepath_agent.gpus.nvml import Nvml
from joulepath_agent.logs import Log
from joulepath_agent.metrics import AgentCollector
from joulepath_agent.peers.budget import BUDGET
from joulepath_agent.peers.peer import JobPod, Peer
from joulepath_agent.peers.process import peer_pidfd, pid_of
from joulepath_agent.peers.refusal import PeerRefusedError
from joulepath_agent.server import serve_health, serve_metrics
from joulepath_crds import JobPlanSpec

__all__ = ["identify", "main"]

_GRACE_S: Final = 20.0
_RECHECK_S: Final = 0.2


def identify(connection: socket.socket, made_after_s: float) -> Peer:
    """The pod that the peer's address or environment names."""
    proc = Path("/proc")
    pidfd = peer_pidfd(connection, proc, made_after_s)
    pid = pid_of(pidfd, proc)
    if address := connection.getpeername():
        return Peer(pid, pidfd, address.decode().strip("\0").partition("/")[0])
    for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        if entry.startswith(b"POD_UID="):
            return Peer(pid, pidfd, entry.partition(b"=")[2].decode())
    os.close(pidfd)
    raise PeerRefusedError("NoPod", f"process {pid} has no POD_UID in its environment")


class Pods:
    """Pods with their GPUs, all of one job."""

    def __init__(self, gpus: Mapping[str, Sequence[str]]) -> None:
        self._gpus = gpus
        self.shared: frozenset[str] = frozenset()

    def __call__(self, pod_uid: str, gpu_uuid: str, gpus: object) -> JobPod:
        """See Locate."""
        if gpu_uuid in self.shared:
            raise PeerRefusedError("SharedGpu", f"{gpu_uuid} is another pod's as well")
        if gpu_uuid not in self._gpus.get(pod_uid, ()):
            raise PeerRefusedError("NotItsGpu", f"{gpu_uuid} isn't a GPU of pod {pod_uid}")
        return JobPod("default", f"pod-{pod_uid}", pod_uid, "job", "job-uid")

    def part(self, pod: JobPod, gpu_uuid: str, gpus: object) -> str:
        """See Locate."""
        return f"{gpu_uuid} is another pod's as well" if gpu_uuid in self.shared else ""


def main() -> None:
    """Runs until SIGTERM or the end of the input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--pod", action="append", default=[])
    parser.add_argument("--on-foreign-clock", type=OnForeignClock, default=OnForeignClock.REASSERT)
    parser.add_argument("--plans-live", type=float, default=math.inf, help="seconds; said again, they live on")
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)
    written = Log("INFO", "%(relativeCreated)d %(threadName)s %(message)s", 2)
    pods = Pods({uid: gpus.split(",") for uid, _, gpus in (pod.partition("=") for pod in options.pod)})
    agent = Agent(
        Nvml(),
        identify,
        pods,
        Paths(options.socket, options.state_dir),
        budget=replace(BUDGET, recheck_s=_RECHECK_S),
        on_foreign_clock=options.on_foreign_clock,
        plan_time_to_live_s=options.plans_live,
    )

    def stop(*_: object) -> None:
        sys.exit(0 if agent.stop(_GRACE_S) else 1)

    signal.signal(signal.SIGTERM, stop)
    agent.start()
    registry = CollectorRegistry()
    registry.register(AgentCollector(agent, "node-a", written.dropped_lines))
    metrics = serve_metrics("127.0.0.1", 0, registry)
    health = serve_health("127.0.0.1", 0, lambda: agent.healthy, lambda: agent.ready)
    print(json.dumps({"port": metrics.port, "healthPort": health.port}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if "plans" in command:
            specs = [JobPlanSpec.from_api(body) for body in command["plans"]]
            agent.set_plans({("default", spec.job_uid): spec for spec in specs})
        if "shared" in command:
            pods.shared = frozenset(command["shared"])
        if "report" in command:
            print(json.dumps(agent.report().to_api()), flush=True)
        if "counts" in command:
            orders = {uuid: setter.sets for uuid, setter in agent.setters.items()}
            counts = {"leaseEnds": agent.lease_ends, "refusals": agent.refusals, "orders": orders}
            print(json.dumps(counts), flush=True)
    stop()


if __name__ == "__main__":
    main()
