"""A node of the real cluster, on which pods get devices, and what the agent there decides for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

from joulepath_agent.cluster.api import NodeApi
from joulepath_agent.peers.devices import NodeGpu
from joulepath_agent.peers.ownership import ClusterPods
from joulepath_clocks.peers.refusal import PeerRefusedError
from real_cluster import Cluster as RealCluster
from tests.agent.cluster.real_api import api_server

__all__ = ["IMAGE", "NODE", "cluster_pods", "decisions", "namespace", "root"]

IMAGE: Final = "localhost/joulepath/busybox:1"
NODE: Final = "node1"
_ASKS: Final = 5


@pytest.fixture(scope="module")
def root(cluster: RealCluster) -> Path:
    """The node's file system."""
    return Path(f"/proc/{cluster.node(NODE).processes.pid(f'{NODE}.namespace')}/root")


@pytest.fixture(scope="module")
def namespace(cluster: RealCluster) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"devices-{uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def cluster_pods(cluster: RealCluster, root: Path, namespace: str) -> ClusterPods:
    """What the node's agent asks."""
    api = NodeApi(api_server(cluster.kubeconfig), NODE, namespace)
    return ClusterPods(root / "var/lib/kubelet/pod-resources/kubelet.sock", api.read_pod, api.read_job)


def decisions(
    cluster: RealCluster, root: Path, namespace: str, gpus: tuple[NodeGpu, ...]
) -> Callable[[str, str, str], str]:
    """Name and UID of a pod and UUID of a GPU to `yes`, or to the code of the agent's refusal."""
    locate = cluster_pods(cluster, root, namespace)

    def decide(name: str, uid: str, gpu_uuid: str) -> str:
        for patience in range(_ASKS, 0, -1):
            try:
                pod = locate(uid, gpu_uuid, gpus)
            except PeerRefusedError as refusal:
                if refusal.code == "Unanswered" and patience > 1:  # a kubelet that was asked too often at once
                    time.sleep(0.5)
                    continue
                return refusal.code
            break
        return "yes" if pod.name == name else f"{pod} isn't the pod that asked"

    return decide
