"""Whose GPU it is by the names that device plugins give, asked of a real kubelet.

Each case has two GPUs of its own, A and B, whose minor numbers aren't in NVML's order. A plugin offers one of them, or
part of it, under a resource of its own, and a job's pod gets that device. All pods run at once.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from joulepath_agent.peers.devices import NodeGpu
from real_cluster import Cluster as RealCluster
from tests.agent.peers.real_node import IMAGE, NODE, decisions, namespace, root
from tests.agent.room import wait_until
from virtual_gpus import model, state
from virtual_gpus.build import library_dir
from virtual_gpus.device_plugin import DevicePlugin, serve

__all__ = ["namespace", "root"]

pytestmark = pytest.mark.cluster


@dataclass(frozen=True)
class Case:
    """A plugin with a device."""

    name: str
    gpus: int
    """Number of its pair of GPUs."""
    resource: str
    device: str
    """Its id: {a} and {b} are the UUIDs, {i} and {j} the indices, {j} and {i} the minor numbers, {mig} an instance."""
    visible: str = "{a}"
    """What the container finds in NVIDIA_VISIBLE_DEVICES, likewise."""

    @property
    def pair(self) -> tuple[NodeGpu, NodeGpu]:
        a, b = (f"GPU-{identity}" for identity in state.gpu_uuids(f"plugins-{self.gpus}", 2))
        i, j = 2 * self.gpus, 2 * self.gpus + 1
        return NodeGpu(a, i, j, mig=False), NodeGpu(b, j, i, mig=False)

    def filled(self, text: str) -> str:
        a, b = self.pair
        (instance,) = state.gpu_uuids("instances", 1)
        return text.format(a=a.uuid, b=b.uuid, i=a.index, j=b.index, mig=f"MIG-{instance}")


CASES = {
    case.name: case
    for case in (
        Case("uuid", 0, "nvidia.com/a-uuid", "{a}"),
        Case("index", 1, "nvidia.com/b-index", "{b}", "{j}"),  # DEVICE_ID_STRATEGY=index: what the container sees
        Case("number", 2, "nvidia.com/c-number", "{i}"),
        Case("minor", 3, "nvidia.com/d-minor", "nvidia{i}", "{b}"),
        Case("time-slicing", 4, "nvidia.com/e.shared", "{a}::1"),
        Case("mps", 5, "nvidia.com/f-mps", "{a}::0"),
        Case("gke-sharing", 6, "nvidia.com/g-vgpu", "nvidia{j}/vgpu0"),
        Case("mig", 7, "nvidia.com/mig-1g.5gb", "{mig}", "{mig}"),
        Case("gke-mig", 8, "nvidia.com/h-gi", "nvidia{j}/gi3"),
        Case("other", 9, "example.com/i-other", "nvidia{i}", "{b}"),
        Case("twice", 10, "nvidia.com/j-twice", "{b}", "{b}"),
        Case("again", 10, "nvidia.com/k-again", "nvidia{i}", "{b}"),
    )
}


@dataclass(frozen=True)
class Pod:
    """A job's pod with a device."""

    name: str
    uid: str
    visible: str


@pytest.fixture(scope="module")
def offered(cluster: RealCluster, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Plugins that offer the devices of all cases on one node."""
    path = tmp_path_factory.mktemp("gpus") / "state"
    state.create(path, model.parametric({}), state.Options(gpus=1))
    plugins = [
        DevicePlugin(path, library_dir(), case.resource, {case.filled(case.device): case.filled(case.visible)})
        for case in CASES.values()
    ]
    folder = root / "var/lib/kubelet/device-plugins"
    threads = [threading.Thread(target=serve, args=(plugin, folder)) for plugin in plugins]
    for thread in threads:
        thread.start()
    try:

        def registered() -> bool:
            node = json.loads(cluster.kubectl("get", "node", NODE, "-o", "json"))
            return all(node["status"]["allocatable"].get(case.resource) == "1" for case in CASES.values())

        wait_until(registered, "the node offers all devices")
        yield
    finally:
        for plugin in plugins:
            plugin.stopped.set()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def pods(cluster: RealCluster, namespace: str, offered: None) -> dict[str, Pod]:
    """The pods, by the name of the case."""
    jobs = [job(case.name, case.resource) for case in CASES.values()]
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump_all(jobs))
    running = ("pods", "-n", namespace, "--field-selector=status.phase=Running", "-o", "json")

    def listed() -> dict[str, str]:
        items = json.loads(cluster.kubectl("get", *running))["items"]
        return {item["metadata"]["name"]: item["metadata"]["uid"] for item in items}

    wait_until(lambda: len(listed()) == len(CASES), "all pods run")
    seen = ("--", "sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES")
    return {
        name.removesuffix("-master-0"): Pod(name, uid, cluster.kubectl("exec", "-n", namespace, name, *seen).strip())
        for name, uid in listed().items()
    }


@pytest.fixture
def ask(cluster: RealCluster, root: Path, namespace: str, pods: dict[str, Pod]) -> Callable[[str, str], str]:
    """What the agent says of a case's pod and a GPU's UUID: see `decisions`."""
    gpus = tuple({gpu for case in CASES.values() for gpu in case.pair})
    decide = decisions(cluster, root, namespace, gpus)
    return lambda case, gpu_uuid: decide(pods[case].name, pods[case].uid, gpu_uuid)


def job(name: str, resource: str) -> dict[str, object]:
    """A job with one pod that has one device."""
    container: dict[str, object] = {"name": "pytorch", "image": IMAGE, "command": ["sleep", "600"]}
    container["resources"] = {"limits": {resource: 1}}
    spec = {"terminationGracePeriodSeconds": 0, "nodeSelector": {"kubernetes.io/hostname": NODE}}
    master = {"replicas": 1, "restartPolicy": "Never", "template": {"spec": {**spec, "containers": [container]}}}
    body = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": name}}
    return {**body, "spec": {"pytorchReplicaSpecs": {"Master": master}}}


@pytest.mark.parametrize(
    ("name", "of_a", "of_b"),
    [
        ("uuid", "yes", "NotItsGpu"),
        ("index", "NotItsGpu", "yes"),
        ("minor", "NotItsGpu", "yes"),  # by its minor number: the second GPU in NVML's order
        ("number", "AmbiguousGpu", "AmbiguousGpu"),
        ("time-slicing", "SharedGpu", "NotItsGpu"),
        ("mps", "SharedGpu", "NotItsGpu"),
        ("gke-sharing", "SharedGpu", "NotItsGpu"),
        ("gke-mig", "MigGpu", "NotItsGpu"),
        ("other", "NotItsGpu", "NotItsGpu"),
    ],
)
def test_a_pod_has_the_gpu_that_its_plugin_means(
    ask: Callable[[str, str], str], pods: dict[str, Pod], name: str, of_a: str, of_b: str
) -> None:
    case = CASES[name]
    assert pods[name].visible == case.filled(case.visible)
    assert [ask(name, gpu.uuid) for gpu in case.pair] == [of_a, of_b]


def test_a_mig_instance_is_refused_by_the_name_that_cuda_gives_it(
    ask: Callable[[str, str], str], pods: dict[str, Pod]
) -> None:
    assert pods["mig"].visible.startswith("MIG-")
    assert ask("mig", pods["mig"].visible.replace("MIG", "GPU")) == "MigGpu"
    assert ask("mig", CASES["mig"].pair[0].uuid) == "NotItsGpu"


def test_a_gpu_that_two_resources_gave_away_is_nobodys(ask: Callable[[str, str], str]) -> None:
    _, gpu = CASES["twice"].pair
    assert (ask("twice", gpu.uuid), ask("again", gpu.uuid)) == ("SharedGpu", "SharedGpu")


def test_the_gpu_of_another_pod_is_not_its_own(ask: Callable[[str, str], str]) -> None:
    assert ask("uuid", CASES["minor"].pair[1].uuid) == "NotItsGpu"
