"""Who is at the socket, when it is a process of a real container."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from joulepath_clocks.peers.cgroup import CgroupIdentity
from joulepath_clocks.peers.peer import Peer
from real_cluster import Cluster as RealCluster
from tests.agent.peers.real_node import IMAGE, NODE, namespace
from tests.clocks.peers.old_kernel import before_6_5

__all__ = ["namespace"]

pytestmark = pytest.mark.cluster

PROC = Path("/proc")
CONNECT = """
import socket, sys, time
while True:
    time.sleep(1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(sys.argv[1])
        client.recv(1)
"""


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[socket.socket]:
    """A socket that containers can reach."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.bind(str(tmp_path_factory.mktemp("socket") / "s"))
        made.listen(8)
        made.settimeout(300)
        yield made


@pytest.fixture(scope="module")
def pod(cluster: RealCluster, namespace: str, listener: socket.socket) -> dict[str, Any]:
    """A pod that connects again and again, by the Python of the node."""
    command = ["chroot", "/host", "/usr/bin/python3", "-c", CONNECT, listener.getsockname()]
    mounts = [{"name": "host", "mountPath": "/host", "readOnly": True}]
    container = {"name": "client", "image": IMAGE, "command": command, "volumeMounts": mounts}
    volumes = [{"name": "host", "hostPath": {"path": "/"}}]
    spec = {"nodeName": NODE, "terminationGracePeriodSeconds": 0, "containers": [container], "volumes": volumes}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"}, "spec": spec}
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump(body))
    return dict(json.loads(cluster.kubectl("get", "pod", "client", "-n", namespace, "-o", "json")))


def accept(listener: socket.socket) -> tuple[socket.socket, float]:
    """The next connection, and a time before it, as the endpoint tells it."""
    while True:
        looked_at_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        if not select.select([listener], [], [], 0)[0]:
            select.select([listener], [], [], 300)
            return listener.accept()[0], looked_at_s
        listener.accept()[0].close()


@pytest.mark.parametrize("kernel", [lambda ask: ask(), before_6_5], ids=["6.5", "5.3"])
def test_the_kernel_and_the_cgroup_tell_the_pod(
    listener: socket.socket, pod: dict[str, Any], kernel: Callable[[Callable[[], Peer]], Peer]
) -> None:
    accept(listener)[0].close()  # its process has begun before the next one
    connection, made_after_s = accept(listener)
    with connection:
        peer = kernel(lambda: CgroupIdentity(PROC)(connection, made_after_s))
        peer.close()
    assert peer.pod_uid == pod["metadata"]["uid"]
