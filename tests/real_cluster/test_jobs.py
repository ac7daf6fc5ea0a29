"""What a training job needs of the cluster: the training operator runs it on both nodes, each pod with its own GPUs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from real_cluster import Cluster

pytestmark = pytest.mark.cluster

_THREE_OF_FOUR_GPUS = {"limits": {"nvidia.com/gpu": 3}}
_SCRIPT = """
echo "rank $RANK of $WORLD_SIZE at $MASTER_ADDR has $NVIDIA_VISIBLE_DEVICES"
case $RANK in
  0) nc -l -p $MASTER_PORT;;
  *) until echo hello | nc $MASTER_ADDR $MASTER_PORT; do sleep 0.2; done;;
esac
"""


@pytest.fixture
def namespace(cluster: Cluster, worker_id: str) -> Iterator[str]:
    name = f"cluster-room-jobs-{worker_id}"
    cluster.kubectl("delete", "namespace", name, "--ignore-not-found")
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name)


def _job() -> dict[str, Any]:
    container = {
        "name": "pytorch",
        "image": "localhost/joulepath/busybox:1",
        "command": ["sh", "-c", _SCRIPT],
        "resources": _THREE_OF_FOUR_GPUS,
    }
    replica = {"replicas": 1, "restartPolicy": "Never", "template": {"spec": {"containers": [container]}}}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "pair"},
        "spec": {"pytorchReplicaSpecs": {"Master": replica, "Worker": replica}},
    }


def test_a_pytorchjob_runs_on_both_nodes_and_each_pod_has_gpus_of_its_own(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("apply", "--namespace", namespace, "-f", "-", stdin=yaml.safe_dump(_job()))
    cluster.kubectl("wait", "--namespace", namespace, "--for=condition=Succeeded", "pytorchjob/pair", "--timeout=120s")
    pods = json.loads(cluster.kubectl("get", "pods", "--namespace", namespace, "-o", "json"))["items"]
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    logs = [cluster.kubectl("logs", "--namespace", namespace, f"pair-{role}-0") for role in ("master", "worker")]
    assert logs[0].endswith("hello\n")
    heads = [log.splitlines()[0].split(" has ") for log in logs]
    assert [head[0] for head in heads] == ["rank 0 of 2 at pair-master-0", "rank 1 of 2 at pair-master-0"]
    gpus = [gpu for head in heads for gpu in head[1].split(",")]
    assert len(set(gpus)) == 6
