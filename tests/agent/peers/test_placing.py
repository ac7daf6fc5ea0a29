"""Whose GPU it is, asked of a real kubelet, a real API server and the cgroup of a real container."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from joulepath_agent.cluster.api import NodeApi
from joulepath_agent.peers.devices import NodeGpu
from joulepath_agent.peers.ownership import ClusterPods
from joulepath_clocks.peers.cgroup import pod_uid_of
from joulepath_clocks.peers.peer import JobPod
from joulepath_clocks.peers.refusal import PeerRefusedError
from real_cluster import Cluster as RealCluster
from tests.agent.cluster.real_api import api_server
from tests.agent.room import wait_until
from virtual_gpus import state

pytestmark = pytest.mark.cluster

IMAGE = "localhost/joulepath/busybox:1"


@dataclass(frozen=True)
class Training:
    """A job with one pod, which has one GPU."""

    namespace: str
    job_uid: str
    pod: str
    pod_uid: str
    gpu_uuid: str
    pods: ClusterPods
    gpus: tuple[NodeGpu, ...]


@pytest.fixture(scope="module")
def training(cluster: RealCluster) -> Iterator[Training]:
    namespace = f"placing-{uuid4().hex[:8]}"
    limits = {"limits": {"nvidia.com/gpu": 1}}
    container = {"name": "pytorch", "image": IMAGE, "command": ["sleep", "600"], "resources": limits}
    template = {"spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}}
    replicas = {"Master": {"replicas": 1, "restartPolicy": "Never", "template": template}}
    job = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "job"}}
    job["spec"] = {"pytorchReplicaSpecs": replicas}
    cluster.kubectl("create", "namespace", namespace)
    try:
        cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump(job))

        def get(what: str, *arguments: str) -> list[dict[str, dict[str, str]]]:
            return list(json.loads(cluster.kubectl("get", what, "-n", namespace, "-o", "json", *arguments))["items"])

        running = ("pods", "--field-selector=status.phase=Running")
        wait_until(lambda: bool(get(*running)), "the pod runs")
        (pod,), (stored,) = get(*running), get("pytorchjobs")
        node = cluster.node(pod["spec"]["nodeName"])
        name = pod["metadata"]["name"]
        gpu = cluster.kubectl("exec", "-n", namespace, name, "--", "sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES").strip()
        root = Path(f"/proc/{node.processes.pid(f'{node.name}.namespace')}/root")
        api = NodeApi(api_server(cluster.kubeconfig), node.name, namespace)
        pods = ClusterPods(root / "var/lib/kubelet/pod-resources/kubelet.sock", api.read_pod, api.read_job)
        uuids = state.uuids(root / "run/virtual-gpus/state")
        gpus = tuple(NodeGpu(uuid, index, index, mig=False) for index, uuid in enumerate(uuids))
        yield Training(namespace, stored["metadata"]["uid"], name, pod["metadata"]["uid"], gpu, pods, gpus)
    finally:
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def test_a_pod_stands_in_its_job_with_its_gpu(training: Training) -> None:
    expected = JobPod(training.namespace, training.pod, training.pod_uid, "job", training.job_uid)
    assert training.pods(training.pod_uid, training.gpu_uuid, training.gpus) == expected


def test_another_pod_does_not_get_its_gpu(training: Training) -> None:
    with pytest.raises(PeerRefusedError, match="NotItsGpu"):
        training.pods(str(uuid4()), training.gpu_uuid, training.gpus)


def test_a_gpu_that_no_pod_holds_is_nobodys(training: Training) -> None:
    with pytest.raises(PeerRefusedError, match="NotItsGpu"):
        training.pods(training.pod_uid, "GPU-none", training.gpus)


def test_the_cgroup_of_its_process_names_the_pod(training: Training) -> None:
    found = {pod_uid_of(text) for text in _cgroups()}
    assert training.pod_uid in found


def _cgroups() -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield (process / "cgroup").read_text()
        except OSError:
            continue
