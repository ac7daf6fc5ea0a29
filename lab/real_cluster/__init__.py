"""A real two-node Kubernetes on one Linux machine, without a registry, a virtual machine or a container engine.

Everything is what runs in production: etcd, API server, controllers, scheduler, kubelets with containerd and runc,
kube-proxy, CoreDNS, the Kubeflow training operator, Helm; built from their Go modules and kept. A node is a mount
namespace. What differs from production is said where it is done: one kube-proxy, etcd without fsync, no NetworkPolicy.

On the command line: `python -m real_cluster {build,up,down,env,load}`. In tests: the fixture `cluster`.
"""

from __future__ import annotations

from . import images
from .binaries import CONTAINERD_1, CONTAINERD_2, NEWER_RUNC
from .cluster import Cluster, cluster_up, down, only_release, running, up
from .commands import CommandError, NotYetError, until
from .kernel import cores_awake
from .machine import MachineError
from .node import Daemon, Node
from .other_runtime import other_node
from .prometheus import prometheus, start_prometheus, stop_prometheus
from .queueing import kueue
from .trainer import trainer

__all__ = [
    "CONTAINERD_1",
    "CONTAINERD_2",
    "NEWER_RUNC",
    "Cluster",
    "CommandError",
    "Daemon",
    "MachineError",
    "Node",
    "NotYetError",
    "cluster_up",
    "cores_awake",
    "down",
    "images",
    "kueue",
    "only_release",
    "other_node",
    "prometheus",
    "running",
    "start_prometheus",
    "stop_prometheus",
    "trainer",
    "until",
    "up",
]
