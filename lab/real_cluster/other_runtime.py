"""One more node, there while somebody asks for it: with the cluster's own containerd, with containerd 1.7, which most
fleets run, or with a runc that knows user namespaces, where the machine's doesn't.

`up` and `running` don't know it, `down` removes it where it was left behind. The scheduler doesn't use it: it is for
pods that name it, so what else happens in the cluster meanwhile has nothing to do with it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator

from . import cgroups, controlplane
from .binaries import CONTAINERD_1, binaries, other_binaries
from .cluster import Cluster
from .commands import NotYetError, until
from .images import own_images
from .kept import locked
from .layout import OTHER_NODE, NodeLayout, cache_folder, run_folder
from .node import Node
from .processes import Processes

__all__ = ["other_node"]


@contextlib.contextmanager
def other_node(cluster: Cluster, other: str) -> Iterator[Node]:
    """A node with `CONTAINERD_2`, `CONTAINERD_1`, its NRI switched on, or `NEWER_RUNC`. No GPUs; one at a time."""
    layout = NodeLayout(OTHER_NODE)
    node = Node(layout, Processes(run_folder(), other_binaries(other)), containerd=1 if other == CONTAINERD_1 else 2)
    kubectl = cluster.processes.path / "kubectl"

    def ready() -> None:
        found = json.loads(cluster.kubectl("get", "node", node.name, "--output", "json"))
        conditions = {one["type"]: one["status"] for one in found["status"]["conditions"]}
        if conditions.get("Ready") != "True":
            raise NotYetError(f"{conditions}: see {node.log('kubelet')}")

    with locked(cache_folder() / ".other-node.lock"):
        _remove(cluster, node)  # a run that was cut off may have left one, with another runtime's images
        try:
            node.up(own_images(binaries()), lambda: controlplane.wait_for_api(kubectl))
            until(f"node {node.name}", 60, ready)
            yield node
        finally:
            _remove(cluster, node)


def _remove(cluster: Cluster, node: Node) -> None:
    node.end_all()
    cgroups.end_processes(node.layout)
    cgroups.remove(node.layout)
    cluster.kubectl("delete", "node", node.name, "--ignore-not-found")
    shutil.rmtree(node.layout.folder, ignore_errors=True)
