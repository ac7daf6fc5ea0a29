"""The cluster as a whole: `up` from nothing or from whatever is left, `down` to nothing.

`up` starts only what doesn't run as asked, so it is also the way to mend a cluster, to add a node or to join one that
another checkout has started. Both hold the same lock file; runs that work with the cluster share another, so that none
removes it under the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import addons, cgroups, controlplane, kernel, machine, network, pki
from .binaries import binaries
from .commands import NotYetError, run, until
from .images import own_images
from .kept import locked
from .layout import MAX_NODES, OTHER_NODE, SOCKETS, NodeLayout, cache_folder, run_folder
from .machine import MachineError
from .node import Daemon, Node
from .processes import Processes
from .progress import say, step

__all__ = ["Cluster", "cluster_up", "down", "only_release", "running", "up"]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster, seen by its administrator."""

    nodes: tuple[Node, ...]
    processes: Processes

    @property
    def kubeconfig(self) -> Path:
        return pki.kubeconfig("admin")

    @property
    def environment(self) -> Mapping[str, str]:
        """KUBECONFIG and PATH for other programs that talk to this cluster."""
        return {"KUBECONFIG": str(self.kubeconfig), "PATH": f"{self.processes.path}:{os.environ.get('PATH', '')}"}

    def node(self, name: str) -> Node:
        """The node of this name; KeyError if there is none."""
        return {node.name: node for node in self.nodes}[name]

    def kubectl(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """Standard output of kubectl as administrator; CommandError with its message if it fails."""
        return run([self.processes.path / "kubectl", *arguments], stdin=stdin, env=self.environment)

    def helm(self, *arguments: str | Path) -> str:
        """Standard output of Helm as administrator; CommandError with its message if it fails."""
        return run([self.processes.path / "helm", *arguments], env=self.environment)

    def load(self, archive: Path) -> None:
        """Import a docker-archive into every node that doesn't have it."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: node.load(archive), self.nodes))


def _processes(path: Path) -> Processes:
    return Processes(run_folder(), path)


def up(nodes: int = 2, daemons: Sequence[Daemon] = ()) -> Cluster:
    """Bring the cluster up, or join it: at least this many nodes, with these daemons on each.

    The first time it builds Kubernetes (about 20 minutes).

    Raises:
        MachineError: The machine lacks something.
    """
    if not 1 <= nodes <= MAX_NODES:
        raise ValueError(f"nodes={nodes}: it must be between 1 and {MAX_NODES}.")
    machine.prepare()
    if not run_folder().exists():
        network.refuse_foreign_cluster()  # before minutes of building, and once more under the lock
    path = binaries()
    images = own_images(path)
    with locked(cache_folder() / ".run.lock"):
        return _up(_processes(path), nodes, daemons, images)


def _up(processes: Processes, count: int, daemons: Sequence[Daemon], images: Sequence[Path]) -> Cluster:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    booted = run_folder() / "boot-id"
    if run_folder().exists() and (not booted.exists() or booted.read_text() != boot):
        _down()  # left by a run that was cut off at its begin, or before the machine was started anew
    if not run_folder().exists():
        network.refuse_foreign_cluster()
        run_folder().mkdir()
        booted.write_text(boot)
    kernel.note_settings()
    network.make_host_network()
    layouts = [NodeLayout(index) for index in range(MAX_NODES)]
    cluster = Cluster(
        tuple(Node(layout, processes) for layout in layouts if layout.index < count or layout.folder.exists()),
        processes,
    )
    ready = run_folder() / f"ready-{len(cluster.nodes)}"
    with step("starting the cluster", 1 if ready.exists() else 20):
        started = controlplane.start_api(processes)
        kubectl = processes.path / "kubectl"

        def node_up(node: Node) -> bool:
            return node.up(images, lambda: controlplane.wait_for_api(kubectl))

        with ThreadPoolExecutor() as pool:
            futures = [pool.submit(node_up, node) for node in cluster.nodes]
            controlplane.wait_for_api(kubectl)
            started |= controlplane.start_controllers(processes)
            started |= sum(future.result() for future in futures) > 0
        started |= sum(daemon.on(node) for node in cluster.nodes for daemon in daemons) > 0
        if started or not ready.exists():
            addons.apply(cluster.kubectl)
            until("the nodes", 60, lambda: _nodes_ready(cluster, daemons))
            addons.wait(cluster.kubectl)
            ready.touch()
    # As NVIDIA's GPU feature discovery labels nodes with GPUs; also where a cluster from before runs already.
    names = [node.name for node in cluster.nodes]
    cluster.kubectl("label", "nodes", *names, "--overwrite", "nvidia.com/gpu.present=true")
    return cluster


def _nodes_ready(cluster: Cluster, daemons: Sequence[Daemon]) -> None:
    """Whether every node is ready and offers what the daemons provide.

    Raises:
        NotYetError: Not so.
    """
    listing = json.loads(cluster.kubectl("get", "nodes", "--output", "json"))
    statuses = {item["metadata"]["name"]: item["status"] for item in listing["items"]}
    for node in cluster.nodes:
        status = statuses.get(node.name, {})
        conditions = {condition["type"]: condition["status"] for condition in status.get("conditions", ())}
        if conditions.get("Ready") != "True":
            raise NotYetError(f"{node.name} isn't ready: see {node.log('kubelet')}")
        for daemon in daemons:
            if node.pid(daemon.name) is None:
                raise MachineError(f"{daemon.name} of {node.name} ended:\n{node.log(daemon.name).read_text()[-2000:]}")
            resource, amount = daemon.provides or ("", 0)
            if amount and status.get("allocatable", {}).get(resource) != str(amount):
                raise NotYetError(f"{node.name} doesn't offer {amount} {resource}: see {node.log(daemon.name)}")


def running() -> Cluster:
    """The cluster that runs; MachineError if none does."""
    kubeconfig = pki.kubeconfig("admin")
    processes = _processes(binaries()) if kubeconfig.exists() else None
    if processes is None or processes.pid("kube-apiserver") is None:
        raise MachineError("No cluster runs: start it (`make cluster`).")
    layouts = (NodeLayout(index) for index in range(MAX_NODES))
    return Cluster(tuple(Node(layout, processes) for layout in layouts if layout.folder.exists()), processes)


@contextlib.contextmanager
def cluster_up(nodes: int = 2, daemons: Sequence[Daemon] = ()) -> Iterator[Cluster]:
    """A cluster, brought up or joined, that nobody removes meanwhile; it is left running (`down` removes it)."""
    with locked(_use_lock(), shared=True):
        yield up(nodes, daemons)


@contextlib.contextmanager
def only_release() -> Iterator[None]:
    """Held by whoever installs a product that a cluster can have once: runs of this machine wait for each other."""
    with locked(cache_folder() / ".release.lock"):
        yield


def down() -> None:
    """Remove all of the cluster but what was built. Harmless if there is none, or only a part.

    Raises:
        MachineError: Another run uses it.
    """
    machine.require_root()
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(_use_lock(), wait=False))
        except BlockingIOError:
            raise MachineError(
                "Another run (a demo or tests) uses the cluster: `make down` when it has ended."
            ) from None
        held.enter_context(locked(cache_folder() / ".run.lock"))
        held.enter_context(step("removing the cluster", 5))
        _down()


def _use_lock() -> Path:
    return cache_folder() / ".use.lock"


def _down() -> None:
    processes = _processes(run_folder())
    layouts = [NodeLayout(index) for index in range(OTHER_NODE + 1)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda layout: Node(layout, processes).end_all(), layouts))
    processes.end_all()
    for layout in layouts:
        cgroups.end_processes(layout)
        cgroups.remove(layout)
    network.remove()
    kernel.restore_settings()
    _remove_folders()


def _remove_folders() -> None:
    shutil.rmtree(SOCKETS, ignore_errors=True)
    made = run_folder() / "made-folders"
    for line in made.read_text().split() if made.exists() else ():
        with contextlib.suppress(OSError):  # not empty: somebody else uses it
            Path(line).rmdir()
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = [mount for mount in mounts if mount.startswith(f"{run_folder()}/")]
    for mount in reversed(inside):
        run(["umount", "--lazy", mount])
    if run_folder().exists():
        shutil.rmtree(run_folder())
    else:
        say("no cluster was running")
