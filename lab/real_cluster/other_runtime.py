"""A node whose container runtime is containerd 1.7, which most fleets run: there while somebody asks for it.

`up` and `running` don't know it, `down` removes it where it was left behind.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator

from . import cgroups, controlplane
from .binaries import binaries, binaries_with_containerd_1
from .cluster import Cluster
from .commands import NotYetError, until
from .images import own_images
from .layout import OTHER_NODE, NodeLayout, run_folder
from .node import Node
from .processes import Processes

__all__ = ["containerd_1"]


@contextlib.contextmanager
def containerd_1(cluster: Cluster) -> Iterator[Node]:
    """A node with containerd 1.7 and its NRI switched on. It has no GPUs."""
    layout = NodeLayout(OTHER_NODE)
    node = Node(layout, Processes(run_folder(), binaries_with_containerd_1()), containerd=1)
    kubectl = cluster.processes.path / "kubectl"

    def ready() -> None:
        found = json.loads(cluster.kubectl("get", "node", node.name, "--output", "json"))
        conditions = {one["type"]: one["status"] for one in found["status"]["conditions"]}
        if conditions.get("Ready") != "True":
            raise NotYetError(f"{conditions}: see {node.log('kubelet')}")

    try:
        node.up(own_images(binaries()), lambda: controlplane.wait_for_api(kubectl))
        until(f"node {node.name}", 60, ready)
        yield node
    finally:
        node.end_all()
        cgroups.end_processes(layout)
        cgroups.remove(layout)
        cluster.kubectl("delete", "node", node.name, "--ignore-not-found")
        shutil.rmtree(layout.folder, ignore_errors=True)
