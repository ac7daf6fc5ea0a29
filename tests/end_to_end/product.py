"""Joulepath as it is installed, by its chart and from its images, on nodes of virtual GPUs made for these tests.

The GPUs' model has six stages: 0 to 3 are uneven, 4 and 5 even; which ones a job runs decides what there is to save.
The wall clock of one node's agent and training is an hour ahead, all the time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from demo.local_cluster import LocalCluster
from demo.manifests import VOLUMES_LABEL
from demo.options import Options
from demo.place import REPOSITORY
from demo.workloads import WORKLOADS
from joulepath_operator.facts.labels import INJECTION_LABEL
from real_cluster import Cluster, Node, NotYetError, images, until
from virtual_gpus import model, state

__all__ = [
    "EVEN",
    "JOBS",
    "LAG_S",
    "PLANS_LIVE_S",
    "PYTHONPATH_IMAGE",
    "RELEASE",
    "SPILL",
    "SYSTEM",
    "UNEVEN",
    "WALL_CLOCK_AHEAD_S",
    "WALL_CLOCK_ENVIRONMENT",
    "Gpus",
    "Product",
    "clear",
    "install",
    "prepare",
    "refuse_another_release",
    "upgrade",
]

RELEASE: Final = "joulepath"
SYSTEM: Final = "joulepath-end-to-end"
"""The release's namespace."""
JOBS: Final = "end-to-end"
"""The namespace of most jobs."""
UNEVEN: Final = 0
EVEN: Final = 4
"""The first of the stages of the GPUs' model that a job runs."""
WALL_CLOCK_AHEAD_S: Final = {"node0": 0, "node1": 3600}
WALL_CLOCK_ENVIRONMENT: Final = {
    "LD_PRELOAD": "/run/virtual-gpus/wall-clock.so",
    "WALL_CLOCK_OFFSET": "/run/virtual-gpus/wall-clock-offset",
}
PYTHONPATH_IMAGE: Final = "joulepath.local/end-to-end-pythonpath:1"

_HERE = Path(__file__).parent
_CHART = REPOSITORY / "charts/joulepath"
_TAG = yaml.safe_load((_CHART / "Chart.yaml").read_text())["appVersion"]
_MODEL = {
    "stage_scale": (0.6, 0.65, 0.55, 1.0, 0.9, 0.9),
    "seconds": {"F": 0.08, "B": 0.16},
    "leak_per_k": 0.0,
}
PLANS_LIVE_S: Final = 60
"""As short as the chart allows."""
SPILL: Final = "spill"
"""A volume of the agent's pods whose limit is small."""
LAG_S: Final = 0.002
"""From an order to the clock, of every virtual GPU."""
_OPTIONS: Mapping[str, Any] = {"gpus": 4, "time_scale": 0.5, "lag_ms": 1000 * LAG_S, "seed": 1}


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs of one node, as they are and not as NVML shows them."""

    path: Path

    @classmethod
    def of(cls, node: Node) -> Gpus:
        """Through the folder that is mounted as the node's own /run/virtual-gpus."""
        return cls(node.layout.folder / "private/run/virtual-gpus/state")

    def locked(self) -> set[str]:
        """UUIDs of the GPUs whose clock is locked, or will be when the order under way is in force."""
        uuids = state.uuids(self.path)
        seen = {uuid: state.look(self.path, gpu) for gpu, uuid in enumerate(uuids)}
        return {uuid for uuid, one in seen.items() if one.lock_high_mhz or (one.pending and one.next_high_mhz)}

    def computed(self) -> dict[str, int]:
        """Kernels that each GPU has begun, by UUID."""
        return {uuid: state.look(self.path, gpu).kernels for gpu, uuid in enumerate(state.uuids(self.path))}

    def last_locked_ns(self, gpus: Collection[str]) -> int:
        """When the driver last took an order to lock one of these GPUs; 0 for never."""
        locked = (
            one
            for gpu, uuid in enumerate(state.uuids(self.path))
            if uuid in gpus
            for one in state.orders(self.path, gpu)
        )
        return max((one.taken_ns for one in locked if one.high_mhz), default=0)

    def returned_s(self, since_ns: int) -> dict[str, float]:
        """Seconds from a moment on until each GPU was at default clocks, by its next order; 0 where it was then.

        By every order that the driver took, not by looks: a running plan unlocks, too, for parts of an iteration. A
        GPU whose next order was another one, or that had none, isn't named.
        """
        found = {}
        for gpu, uuid in enumerate(state.uuids(self.path)):
            orders = state.orders(self.path, gpu)
            before = [one for one in orders if one.taken_ns <= since_ns][-1:]
            after = [one for one in orders if one.taken_ns > since_ns][:1]
            if not before or not before[0].high_mhz:
                found[uuid] = 0.0
            elif after and not after[0].high_mhz:
                found[uuid] = (after[0].taken_ns - since_ns) / 1e9
        return found

    def at_default(self, since_ns: int) -> set[str]:
        """UUIDs of the GPUs that have been at default clocks from a moment until now, by every order."""

        def was(gpu: int) -> bool:
            orders = state.orders(self.path, gpu)
            before = [one for one in orders if one.taken_ns <= since_ns][-1:]
            return not any(one.high_mhz for one in orders if one.taken_ns > since_ns or one in before)

        return {uuid for gpu, uuid in enumerate(state.uuids(self.path)) if was(gpu)}


@dataclass(frozen=True, slots=True)
class Product:
    """An installed release."""

    cluster: Cluster
    untouched: Mapping[str, Any]
    """A job's pods as they were made before the release was there, see `jobs.pods_as_made`."""

    def gpus(self, node: str) -> Gpus:
        """The GPUs of a node."""
        return Gpus.of(self.cluster.node(node))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """In the release's namespace."""
        return self.cluster.kubectl("--namespace", SYSTEM, *arguments, stdin=stdin)

    def pod(self, part: str, node: str | None = None) -> dict[str, Any]:
        """The one living pod of a part (on a node); NotYetError if there isn't one."""
        chosen = ["get", "pods", "--selector", f"app.kubernetes.io/component={part}", "--output", "json"]
        chosen += ["--field-selector", f"spec.nodeName={node}"] if node else []
        living = [
            one for one in json.loads(self.kubectl(*chosen))["items"] if not one["metadata"].get("deletionTimestamp")
        ]
        if len(living) != 1:
            raise NotYetError(f"{len(living)} pods of {part} on {node}")
        return dict(living[0])


def prepare(cluster: Cluster) -> None:
    """GPUs and images: all that the release and the jobs need."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "wall-clock.so")
        flags = ("-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-o")
        subprocess.run(["gcc", *flags, str(library), str(_HERE / "wall_clock.c"), "-ldl"], check=True)
        for node in cluster.nodes:
            path = Gpus.of(node).path
            state.create(path, model.parametric(_MODEL), state.Options(node=node.name, **_OPTIONS))
            for stale in path.parent.glob("stop-*"):
                stale.unlink()
            path.with_name("wall-clock.so").write_bytes(library.read_bytes())
            path.with_name("wall-clock-offset").write_text(str(WALL_CLOCK_AHEAD_S[node.name]))
    registry = LocalCluster(Options()).values()["image"]["registry"]
    archives = [images.build(REPOSITORY / "Dockerfile", part, f"{registry}/{part}:{_TAG}") for part in _PARTS]
    archives.append(
        images.build(
            WORKLOADS["gpt3"].example / "Dockerfile", None, f"{registry}/example-pytorchjob:{_TAG}", context=REPOSITORY
        )
    )
    archives.append(images.build(_HERE / "pythonpath_image/Dockerfile", None, PYTHONPATH_IMAGE))
    for archive in archives:
        cluster.load(archive)


_PARTS = ("operator", "agent")


def refuse_another_release(cluster: Cluster) -> None:
    """AssertionError if somebody else's release is there: two agents must not set one GPU's clocks."""
    releases = json.loads(cluster.helm("list", "--all-namespaces", "--output", "json"))
    others = [one for one in releases if one["chart"].startswith("joulepath-") and one["namespace"] != SYSTEM]
    assert not others, f"Joulepath is installed in namespace {others[0]['namespace']}: uninstall it there"


def clear(cluster: Cluster) -> None:
    """Removes the release and its jobs, whatever is left of them."""
    cluster.helm("uninstall", RELEASE, "--namespace", SYSTEM, "--ignore-not-found", "--wait")
    cluster.kubectl("delete", "namespace", SYSTEM, JOBS, "--ignore-not-found", "--wait", "--timeout=60s")
    volumes = ("persistentvolumes", f"--selector={VOLUMES_LABEL}={JOBS}")
    cluster.kubectl("delete", *volumes, "--ignore-not-found", "--wait", "--timeout=60s")


def ask_for_the_webhook(cluster: Cluster, namespace: str) -> None:
    """So that pods of a namespace get the trainer by volumes."""
    cluster.kubectl("label", "namespace", namespace, f"{INJECTION_LABEL}=volumes")


def install(cluster: Cluster, injection: str = "nri") -> None:
    """`helm install`, as a person would, with the chart's own requests and limits."""
    refuse_another_release(cluster)
    # Definitions that tests of another revision left on this cluster are replaced.
    taking = ("--create-namespace", "--take-ownership", "--force-conflicts")
    _helm(cluster, {}, "install", *taking, "--wait", "--timeout", "120s", "--set", f"injection={injection}")


def upgrade(cluster: Cluster, agent: Mapping[str, Any]) -> None:
    """`helm upgrade` with values of the agent that are changed; returns at once."""
    _helm(cluster, agent, "upgrade")


def _helm(cluster: Cluster, agent: Mapping[str, Any], verb: str, *options: str) -> None:
    values = json.loads(json.dumps(LocalCluster(Options()).values()))
    environment = [{"name": name, "value": value} for name, value in WALL_CLOCK_ENVIRONMENT.items()]
    mine = values["agent"]
    mine["extraEnv"] += environment
    mine["extraVolumes"].append({"name": SPILL, "emptyDir": {"sizeLimit": "1Mi"}})
    mine["extraVolumeMounts"].append({"name": SPILL, "mountPath": f"/{SPILL}"})
    mine |= {"planTimeToLiveSeconds": PLANS_LIVE_S, **agent}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(yaml.safe_dump(values))
        file.flush()
        cluster.helm(verb, RELEASE, _CHART, "--namespace", SYSTEM, *options, "--values", file.name)


def python() -> Path:
    """The interpreter with torch, which training pods mount."""
    return Path(sys.executable)


def wait_ready(product: Product, what: str) -> None:
    """Until a Deployment or DaemonSet of the release is rolled out."""
    until(what, 60, lambda: product.kubectl("rollout", "status", what, "--timeout=1s"))
