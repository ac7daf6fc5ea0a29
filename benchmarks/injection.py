"""What the injector costs pods that it is not for, on the test cluster; writes benchmarks/results/injection.json.

    .venv/bin/python benchmarks/injection.py [--batches 20]

Pods of a job without the annotation start on a real kubelet and containerd, ten at once: in pairs of batches, one with
the injector on the node, which asks the agent's own code, which asks kubelet and API server, and one without, in random
order. Times are those of containerd's log: from when the kubelet asks for the pod's sandbox until its container is
started, and within that how long the container was being made, which is what waits for the injector. Of each pair the
ratio of the means counts. Then the specifications that containerd ran are compared byte for byte.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import signal
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from joulepath_agent.cluster.api import NodeApi  # noqa: E402
from joulepath_agent.injection.admission import Admission  # noqa: E402
from joulepath_agent.injection.client import Client  # noqa: E402
from joulepath_agent.injection.jobs import Jobs  # noqa: E402
from joulepath_agent.injection.registry import Registry  # noqa: E402
from joulepath_agent.peers.podresources import held_devices  # noqa: E402
from joulepath_rules import JOB_LABELS  # noqa: E402
from real_cluster import NotYetError, cluster_up, only_release, until  # noqa: E402
from real_cluster.gpus import gpu_daemons  # noqa: E402
from tests.agent.cluster.real_api import api_server  # noqa: E402
from tests.end_to_end.jobs import waiting_job  # noqa: E402
from tests.injector.test_real_runtime import Place, busybox, specification  # noqa: E402

RESULT: Final = ROOT / "benchmarks/results/injection.json"
AT_ONCE: Final = 10
JOB: Final = "plain"
LIMIT_S: Final = 120
MOST_LONGER: Final = 0.05
"""Of a pod's start."""
TIMED: Final = re.compile(r'^time="(\S+)" level=info msg="(.+)"$')


@dataclass(frozen=True, slots=True)
class Batch:
    """What became of ten pods: seconds of each, and what the runtime was asked to run."""

    start_s: tuple[float, ...]
    create_s: tuple[float, ...]
    specifications: tuple[str, ...]


# the agent, a process of its own


def answer() -> None:
    """Answers the injector of the node as its agent does, until it is ended."""
    cluster, registry = NodeApi(api_server(Path(os.environ["KUBECONFIG"])), "node0", "joulepath"), Registry()
    client = Client(Path("/var/lib/joulepath"), registry, lambda: True)
    held = partial(held_devices, Path("/var/lib/kubelet/pod-resources/kubelet.sock"))
    client.start(Admission(registry, Jobs(cluster.read_job), held, lambda: (), client.say))
    signal.pause()


@contextmanager
def agent(place: Place) -> Iterator[None]:
    """It is there, whether or not there is an injector."""
    environment = {"KUBECONFIG": str(place.cluster.kubeconfig), "PYTHONPATH": f"{ROOT}:{ROOT / 'lab'}"}
    place.node.start("injection-agent", [sys.executable, __file__, "--answer"], env=environment)
    try:
        yield
    finally:
        place.node.stop("injection-agent")


@contextmanager
def injector(place: Place) -> Iterator[None]:
    """It is there, and the agent with it."""
    log = place.node.log("injection-bench")

    def agents() -> int:
        return log.read_text().count("an agent is there") if log.exists() else 0

    before = agents()
    with place.injector("injection-bench"):
        until("the agent", LIMIT_S, lambda: agents() > before)
        yield


# pods


def run(place: Place) -> Batch:
    """Ten pods, from their creation to their deletion."""
    log = place.node.log("containerd")
    before = log.stat().st_size
    batch = uuid4().hex[:6]
    labels = {JOB_LABELS[0]: JOB, "batch": batch}
    pods = [place.pod(busybox(script="exit"), labels=labels) for _ in range(AT_ONCE)]
    names = [pod["metadata"]["name"] for pod in pods]
    listed = {"apiVersion": "v1", "kind": "List", "items": pods}
    place.kubectl("create", "--filename", "-", stdin=json.dumps(listed))

    def ended() -> None:
        found = json.loads(place.kubectl("get", "pods", "--selector", f"batch={batch}", "--output", "json"))["items"]
        phases = Counter(one["status"]["phase"] for one in found)
        if phases["Succeeded"] < AT_ONCE:
            raise NotYetError(f"{phases}")

    until("ten pods", LIMIT_S, ended, pause_s=1.0)
    with log.open("rb") as file:
        file.seek(before)
        times = dict(timed(file.read().decode()))
    made = Batch(
        tuple(times[name][0] for name in names),
        tuple(times[name][1] for name in names),
        tuple(specification(place, name) for name in names),
    )
    place.kubectl("delete", "pods", "--selector", f"batch={batch}", "--wait=true")
    return made


def timed(log: str) -> Iterator[tuple[str, tuple[float, float]]]:
    """Of each pod the seconds until its container was started, and in which that was made."""
    asked, pods, begun, made = dict[str, float](), dict[str, str](), dict[str, float](), dict[str, tuple[str, float]]()
    for line in log.splitlines():
        if not (found := TIMED.match(line)):
            continue
        at_s, said = datetime.fromisoformat(found[1]).timestamp(), found[2].replace('\\"', '"')
        if one := re.match(r'RunPodSandbox for name:"([^"]+)".* returns sandbox id "(\w+)"', said):
            pods[one[2]] = one[1]
        elif one := re.match(r'RunPodSandbox for name:"([^"]+)"', said):
            asked[one[1]] = at_s
        elif one := re.match(r'CreateContainer within sandbox "(\w+)" .* returns container id "(\w+)"', said):
            made[one[2]] = one[1], at_s - begun[one[1]]
        elif one := re.match(r'CreateContainer within sandbox "(\w+)" for container', said):
            begun[one[1]] = at_s
        elif (one := re.match(r'StartContainer for "(\w+)" returns successfully', said)) and one[1] in made:
            sandbox, create_s = made[one[1]]
            if (name := pods.get(sandbox)) in asked:
                yield str(name), (at_s - asked[str(name)], create_s)


# figures


def ratio(pairs: list[tuple[Batch, Batch]], what: str) -> tuple[float, float, float]:
    """With by without, and its interval of 95% by the pairs."""
    logs = [math.log(statistics.mean(getattr(a, what)) / statistics.mean(getattr(b, what))) for a, b in pairs]
    mean, error = statistics.mean(logs), statistics.stdev(logs) / math.sqrt(len(logs))
    reach = _student(len(logs) - 1) * error
    return math.exp(mean), math.exp(mean - reach), math.exp(mean + reach)


def _student(freedom: int) -> float:
    """Of the t distribution, 97.5%."""
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))


def measure(place: Place, batches: int) -> list[tuple[Batch, Batch]]:
    """Pairs, with the injector first in each."""
    pairs, chance = [], random.Random(7)
    for number in range(batches):
        of_pair: dict[bool, Batch] = {}
        for there in chance.sample((True, False), 2):
            if there:
                with injector(place):
                    of_pair[there] = run(place)
            else:
                of_pair[there] = run(place)
        pairs.append((of_pair[True], of_pair[False]))
        told = [statistics.mean(one.start_s) for one in pairs[-1]]
        print(f"{number + 1}: {told[0]:.3f} s with, {told[1]:.3f} s without", flush=True)
    return pairs


def judged(pairs: list[tuple[Batch, Batch]]) -> Iterator[dict[str, Any]]:
    """The bars: values must not exceed their limits."""
    _, low, _ = ratio(pairs, "start_s")
    name = "start of a pod with the injector by one without: low end of the 95% interval (1: no cost that is measured)"
    yield {"name": name, "value": low, "limit": 1.0, "holds": low <= 1.0}
    middle = ratio(pairs, "start_s")[0]
    name = "start of a pod with the injector by one without"
    yield {"name": name, "value": middle, "limit": 1 + MOST_LONGER, "holds": middle <= 1 + MOST_LONGER}
    different = len({text for pair in pairs for batch in pair for text in batch.specifications}) - 1
    name = "specifications that differ, of all these containers with and without the injector"
    yield {"name": name, "value": different, "limit": 0, "holds": not different}


def main() -> int:
    """Measures and writes the result; 0 if every bar holds."""
    parser = argparse.ArgumentParser(description="What the injector costs pods that it is not for.")
    parser.add_argument("--batches", type=int, default=20, help="of ten pods, with and without each (default 20)")
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        answer()
    name = f"injection-{uuid4().hex[:6]}"
    with cluster_up(2, gpu_daemons(4)) as cluster, only_release():
        place = Place(cluster, cluster.node("node0"), name)
        cluster.kubectl("create", "namespace", name)
        job = waiting_job(JOB, annotated=False)
        job["spec"]["runPolicy"]["suspend"] = True
        place.kubectl("create", "--filename", "-", stdin=json.dumps(job))
        try:
            with agent(place):
                run(place)  # the first ones of a namespace wait for what comes into being with it
                pairs = measure(place, options.batches)
        finally:
            cluster.kubectl("delete", "namespace", name, "--wait=false")
    bars = list(judged(pairs))
    figures = {
        what: {
            "ratio": dict(zip(("middle", "low", "high"), ratio(pairs, f"{what}_s"), strict=True)),
            **{
                which: round(1e3 * statistics.mean(one for pair in pairs for one in getattr(pair[at], f"{what}_s")), 2)
                for at, which in enumerate(("with_ms", "without_ms"))
            },
        }
        for what in ("start", "create")
    }
    machine = {"cpus": os.cpu_count(), "kubelet": "real", "containerd": "real", "gpu": "none"}
    count = AT_ONCE * len(pairs)
    result = {"bars": bars, "machine": machine, "pods": {"with": count, "without": count}, "measured": figures}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    for bar in bars:
        print(f"{'holds ' if bar['holds'] else 'MISSED'} {bar['name']}: {bar['value']:.4g}, limit {bar['limit']}")
    return 0 if all(bar["holds"] for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
