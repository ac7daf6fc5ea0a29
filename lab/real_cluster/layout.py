"""Where everything of the cluster is: versions, addresses, paths.

All files are below the cache folder (`JOULEPATH_CACHE`, else `XDG_CACHE_HOME`/joulepath, else ~/.cache/joulepath):
what is built under a name that holds its content's hash, what runs under `run/`. Two things can't live there: unix
sockets, whose paths end at 107 bytes (they are in `/run/joulepath-cluster`), and the paths of which every node has
its own copy, which are mount points of the machine (`PRIVATE_PATHS`).

The addresses belong to bridges of this cluster, so nothing listens on an address that another machine knows. Pods of
node N are in 10.213.N.0/24. One cluster a machine: names, ports and networks are fixed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = [
    "API_ADDRESS",
    "API_PORT",
    "API_SERVICE_ADDRESS",
    "CLUSTER_NETWORK",
    "DNS_SERVICE_ADDRESS",
    "HOST_BRIDGE",
    "KUBERNETES_VERSION",
    "MAX_NODES",
    "OTHER_NODE",
    "PRIVATE_PATHS",
    "SERVICE_NETWORK",
    "SOCKETS",
    "NodeLayout",
    "cache_folder",
    "run_folder",
]


KUBERNETES_VERSION: Final = "1.37.2"
API_PORT: Final = 6443
HOST_BRIDGE: Final = "jp-host"
API_ADDRESS: Final = "10.213.255.1"
CLUSTER_NETWORK: Final = "10.213.0.0/16"
SERVICE_NETWORK: Final = "10.214.0.0/16"
API_SERVICE_ADDRESS: Final = "10.214.0.1"
DNS_SERVICE_ADDRESS: Final = "10.214.0.10"
MAX_NODES: Final = 15
OTHER_NODE: Final = MAX_NODES
"""The index of one more, with another container runtime: see `other_runtime`."""

PRIVATE_PATHS: Final = (
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/var/log/pods",
    "/var/log/containers",
    "/run/containerd",
    "/run/joulepath",
    "/var/lib/joulepath",
    "/run/nri",  # the socket of containerd's plugins, /var/run/nri/nri.sock
    "/run/virtual-gpus",
    "/run/mount",  # where mount(8), which the kubelet runs, leaves notes
)
"""Host paths of which each node has its own; the nodes share the rest of the machine's file system."""

SOCKETS: Final = Path("/run/joulepath-cluster")


def cache_folder() -> Path:
    """The folder for all that is built or runs, made if missing."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(os.environ.get("JOULEPATH_CACHE") or f"{base}/joulepath").expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run_folder() -> Path:
    """The folder of the running cluster; it exists from `up` to `down`."""
    return cache_folder() / "run"


@dataclass(frozen=True, slots=True)
class NodeLayout:
    """The fixed facts of the node with this index."""

    index: int

    @property
    def name(self) -> str:
        return f"node{self.index}"

    @property
    def address(self) -> str:
        return f"10.213.255.{10 + self.index}"

    @property
    def pod_bridge(self) -> str:
        return f"jp-pods{self.index}"

    @property
    def pod_gateway(self) -> str:
        return f"10.213.{self.index}.1"

    @property
    def pod_network(self) -> str:
        return f"10.213.{self.index}.0/24"

    @property
    def cgroup(self) -> str:
        """The node's cgroup, the same in every hierarchy: its pods are below it."""
        return f"/joulepath-{self.name}"

    @property
    def folder(self) -> Path:
        return run_folder() / self.name

    @property
    def sockets(self) -> Path:
        return SOCKETS / self.name

    @property
    def containerd_socket(self) -> Path:
        return self.sockets / "containerd.sock"

    @property
    def health_port(self) -> int:
        """The kubelet's health port, on 127.0.0.1: the one port that the nodes can't share."""
        return 10400 + self.index
