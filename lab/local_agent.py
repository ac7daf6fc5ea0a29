"""The agent without a cluster: pods come from the command line, plans and questions from standard input.

It knows of ranks what the `local_clocks` tell it that run on the same state folder; with `--socket` it starts such
ones itself, for ranks at that socket, and ends them when it ends.

    python local_agent.py --state-dir D [--pod UID=GPU,GPU ...] [--socket S]
    > {"plans": [JobPlan spec, ...]}          every plan there is, for job-uid's of namespace "default"
    > {"plans": [...], "of": [UID, ...]}      of these jobs only
    > {"policy": EnergyPolicy spec}           what it is now; plans that are told are news of it, too
    > {"plans": [...], "unheard": true}       without news of the policy
    > {"report": true}                        answered with one line: the NodeReport's status
    > {"counts": true}                        answered with lease ends, refusals and orders by GPU, a moment later
    > {"shared": [GPU, ...]}                  GPUs that are given to a second pod as well, all of them
"""

from __future__ import annotations

import argparse
import atexit
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from joulepath_agent.agent import Agent
from joulepath_agent.logs import Log
from joulepath_agent.metrics import AgentCollector
from joulepath_agent.server import serve_health, serve_metrics
from joulepath_clocks.gpus.nvml import Nvml
from joulepath_clocks.peers.budget import BUDGET
from joulepath_clocks.peers.peer import JobPod
from joulepath_clocks.peers.refusal import PeerRefusedError
from joulepath_crds import EnergyPolicySpec, JobPlanSpec

__all__ = ["main"]

_RECHECK_S: Final = 0.2
_TOLD_S: Final = 0.6
"""Within that, the clocks have told the agent how they are."""


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


def start_clocks(path: Path, state_dir: Path) -> None:
    """Starts clocks, and waits until they are there."""
    program = Path(__file__).with_name("local_clocks.py")
    command = [sys.executable, str(program), "--socket", str(path), "--state-dir", str(state_dir)]
    clocks = subprocess.Popen(command, stdout=subprocess.PIPE)
    atexit.register(clocks.wait)
    atexit.register(clocks.terminate)
    assert clocks.stdout is not None
    clocks.stdout.readline()


def main() -> None:
    """Runs until SIGTERM or the end of the input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--socket", type=Path)
    parser.add_argument("--pod", action="append", default=[])
    options = parser.parse_args()
    written = Log("INFO", "%(relativeCreated)d %(threadName)s %(message)s", 2)
    pods = Pods({uid: gpus.split(",") for uid, _, gpus in (pod.partition("=") for pod in options.pod)})
    agent = Agent(Nvml(), pods, options.state_dir, budget=replace(BUDGET, recheck_s=_RECHECK_S))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if options.socket is not None:
        start_clocks(options.socket, options.state_dir)
    policy = EnergyPolicySpec()
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
            jobs = [("default", uid) for uid in command["of"]] if "of" in command else None
            agent.set_plans({("default", spec.job_uid): spec for spec in specs}, jobs)
            if not command.get("unheard"):
                agent.set_policy(policy)
        if "policy" in command:
            policy = EnergyPolicySpec.from_api(command["policy"])
            agent.set_policy(policy)
        if "shared" in command:
            pods.shared = frozenset(command["shared"])
        if "report" in command:
            print(json.dumps(agent.report().to_api()), flush=True)
        if "counts" in command:
            time.sleep(_TOLD_S)
            orders = {uuid: gpu.sets for uuid, gpu in agent.gpus.items()}
            counts = {"leaseEnds": agent.node.lease_ends, "refusals": agent.node.refusals, "orders": orders}
            print(json.dumps(counts), flush=True)
    agent.stop()


if __name__ == "__main__":
    main()
