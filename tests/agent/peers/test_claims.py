"""Whose GPU it is where pods claim them (DRA), asked of a real kubelet, scheduler and a driver with NVIDIA's names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from joulepath_agent.peers.devices import NodeGpu
from joulepath_clocks.peers.peer import JobPod
from real_cluster import Cluster as RealCluster
from tests.agent.peers.real_node import IMAGE, NODE, cluster_pods, decisions, namespace, root
from tests.agent.room import wait_until
from virtual_gpus import state
from virtual_gpus.dra_driver import DRIVER, DraDriver, Result

__all__ = ["namespace", "root"]

pytestmark = pytest.mark.cluster

A, B, C = (f"GPU-{identity}" for identity in state.gpu_uuids("claims", 3))
GPUS = (NodeGpu(A, 0, 1, mig=False), NodeGpu(B, 1, 0, mig=False), NodeGpu(C, 2, 2, mig=False))
INSTANCE = "MIG-" + str(state.gpu_uuids("instances", 1)[0])
DEVICES = {"gpu-1": A, "gpu-0": B, "gpu-2-mig-1g5gb-19-0": INSTANCE}
CLAIMS = {"whole": "gpu-0", "shared": "gpu-1", "instance": "gpu-2-mig-1g5gb-19-0"}
"""The device of each claim."""
PODS = {"whole": "whole", "first": "shared", "second": "shared", "instance": "instance"}
"""The claim of each pod."""


@pytest.fixture(scope="module")
def driver(cluster: RealCluster, root: Path) -> Iterator[None]:
    """The driver on one node, and its devices."""

    def allocated(namespace: str, name: str) -> Sequence[Result]:
        claim = json.loads(cluster.kubectl("get", "resourceclaim", name, "-n", namespace, "-o", "json"))
        return list(claim["status"]["allocation"]["devices"]["results"])

    objects = yaml.safe_dump_all([device_class(), resource_slice()])
    serving = DraDriver(root, DEVICES, allocated)
    try:
        cluster.kubectl("apply", "-f", "-", stdin=objects)
        yield
    finally:
        cluster.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=objects)
        serving.close()


@pytest.fixture(scope="module")
def pods(cluster: RealCluster, namespace: str, driver: None) -> Iterator[Mapping[str, dict[str, str]]]:
    """UID and visible device of each pod. They belong to a job that makes none itself: the training operator 1.8.1 is
    built with Kubernetes 0.29, and drops what it doesn't know of claims."""
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump(suspended_job()))
    owner = json.loads(cluster.kubectl("get", "pytorchjob", "job", "-n", namespace, "-o", "json"))["metadata"]["uid"]
    objects = [claim(name, device) for name, device in CLAIMS.items()]
    objects += [pod(name, of, owner) for name, of in PODS.items()]
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump_all(objects))
    running = ("pods", "-n", namespace, "--field-selector=status.phase=Running", "-o", "json")

    def listed() -> dict[str, str]:
        items = json.loads(cluster.kubectl("get", *running))["items"]
        return {item["metadata"]["name"]: item["metadata"]["uid"] for item in items}

    wait_until(lambda: listed().keys() == PODS.keys(), "all pods run")
    seen = ("--", "sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES")
    yield {
        name: {"uid": uid, "visible": cluster.kubectl("exec", "-n", namespace, name, *seen).strip()}
        for name, uid in listed().items()
    }
    cluster.kubectl("delete", "pods", "--all", "-n", namespace, "--wait=true")  # the driver takes the claims back


def device_class() -> dict[str, Any]:
    meta = {"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": DRIVER}}
    return {**meta, "spec": {"selectors": [{"cel": {"expression": f"device.driver == '{DRIVER}'"}}]}}


def resource_slice() -> dict[str, Any]:
    meta = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": f"{NODE}-{DRIVER}"}}
    devices = [{"name": name, "attributes": {"uuid": {"string": uuid}}} for name, uuid in DEVICES.items()]
    pool = {"name": NODE, "generation": 1, "resourceSliceCount": 1}
    return {**meta, "spec": {"driver": DRIVER, "nodeName": NODE, "pool": pool, "devices": devices}}


def claim(name: str, device: str) -> dict[str, Any]:
    selector = {"cel": {"expression": f"device.attributes['{DRIVER}'].uuid == '{DEVICES[device]}'"}}
    request = {"name": "gpu", "exactly": {"deviceClassName": DRIVER, "selectors": [selector]}}
    meta = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": name}}
    return {**meta, "spec": {"devices": {"requests": [request]}}}


def suspended_job() -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "pytorch", "image": IMAGE}]}}
    specs = {"Master": {"replicas": 1, "restartPolicy": "Never", "template": template}}
    meta = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "job"}}
    return {**meta, "spec": {"runPolicy": {"suspend": True}, "pytorchReplicaSpecs": specs}}


def pod(name: str, of: str, owner: str) -> dict[str, Any]:
    controller = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "name": "job", "uid": owner}
    container = {
        "name": "pytorch",
        "image": IMAGE,
        "command": ["sleep", "600"],
        "resources": {"claims": [{"name": "g"}]},
    }
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    claims = [{"name": "g", "resourceClaimName": of}]
    meta = {"name": name, "ownerReferences": [{**controller, "controller": True}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {**spec, "resourceClaims": claims}}


@pytest.fixture
def ask(
    cluster: RealCluster, root: Path, namespace: str, pods: Mapping[str, dict[str, str]]
) -> Callable[[str, str], str]:
    """What the agent says of a pod and a GPU's UUID: see `decisions`."""
    decide = decisions(cluster, root, namespace, GPUS)
    return lambda name, gpu_uuid: decide(name, pods[name]["uid"], gpu_uuid)


def test_a_claimed_gpu_is_the_pods_by_its_minor_number(
    ask: Callable[[str, str], str], pods: Mapping[str, dict[str, str]]
) -> None:
    assert pods["whole"]["visible"] == B
    assert (ask("whole", B), ask("whole", A), ask("first", B)) == ("yes", "NotItsGpu", "NotItsGpu")


def test_a_claim_that_two_pods_share_is_nobodys(ask: Callable[[str, str], str]) -> None:
    assert (ask("first", A), ask("second", A)) == ("SharedGpu", "SharedGpu")


def test_a_pod_that_was_there_first_learns_of_the_second(
    cluster: RealCluster, root: Path, namespace: str, pods: Mapping[str, dict[str, str]]
) -> None:
    part = cluster_pods(cluster, root, namespace).part
    first, whole = (JobPod(namespace, name, pods[name]["uid"], "job", "") for name in ("first", "whole"))
    assert part(first, A, GPUS).startswith("SharedGpu")
    assert part(whole, B, GPUS) == ""


def test_a_claimed_mig_instance_is_refused(ask: Callable[[str, str], str]) -> None:
    assert ask("instance", INSTANCE.replace("MIG", "GPU")) == "MigGpu"
