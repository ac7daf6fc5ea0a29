"""One node: a mount namespace in which its kubelet, containerd and daemons see their own `/var/lib/kubelet` and so on.

The nodes share the machine's network, kernel and the rest of its file system. The namespace is held by a sleeping
process, so that everything in it can be stopped and started alone. Mounts in it are shared within it and invisible
outside: when its last process ends, the kernel removes them.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import yaml

from . import cgroups, network, pki
from .archive import identity
from .commands import run, until
from .kept import locked
from .layout import DNS_SERVICE_ADDRESS, OTHER_NODE, PRIVATE_PATHS, NodeLayout, run_folder
from .machine import MachineError, cni_folder, program
from .processes import Processes

__all__ = ["Daemon", "Node"]


_LAST: Final = ("containerd", "namespace")


@dataclass(frozen=True, slots=True)
class Daemon:
    """A process that `up` starts on every node, inside its mount namespace.

    In `argv` and `env` `{node}` and `{index}` stand for the node's name and number. `provides` is what the node
    offers once the daemon works, such as ("nvidia.com/gpu", 4): `up` waits for it.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] | None = None
    provides: tuple[str, int] | None = None

    def on(self, node: Node) -> bool:
        """Start it on this node unless it runs; True if it was started."""

        def filled(text: str) -> str:
            return text.replace("{node}", node.name).replace("{index}", str(node.index))

        environment = {key: filled(value) for key, value in (self.env or {}).items()}
        return node.start(self.name, [filled(word) for word in self.argv], env=environment)


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the running cluster."""

    layout: NodeLayout
    processes: Processes
    containerd: int = 2
    """The major version that `processes` finds."""

    @property
    def name(self) -> str:
        return self.layout.name

    @property
    def index(self) -> int:
        return self.layout.index

    @property
    def address(self) -> str:
        return self.layout.address

    def inside(self, *command: str | Path) -> list[str]:
        """The argv that runs `command` in the node's mount namespace (absolute paths: it begins in `/`)."""
        pid = self.processes.pid(f"{self.name}.namespace")
        if pid is None:
            raise MachineError(f"Node {self.name} doesn't run: start the cluster (`make cluster`).")
        return [program("nsenter") or "nsenter", "--mount", "--target", str(pid), "--", *map(str, command)]

    def nsenter(self, *command: str | Path, stdin: str | None = None) -> str:
        """Run `command` in the node's mount namespace; its standard output, or CommandError."""
        return run(self.inside(*command), stdin=stdin)

    def start(
        self, name: str, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, files: Sequence[Path] = ()
    ) -> bool:
        """Start a daemon inside the node unless it runs with this very command; True if it was started.

        `files`: its configuration; a change of their content starts it anew, as a change of the command does.
        """
        return self.processes.start(f"{self.name}.{name}", self.inside(*argv), env=env, files=files)

    def stop(self, name: str) -> None:
        """End a daemon (SIGTERM, after 5 s SIGKILL); `kubelet` and `containerd` are such names too."""
        self.processes.stop(f"{self.name}.{name}")

    def pid(self, name: str) -> int | None:
        """The pid of a daemon that lives."""
        return self.processes.pid(f"{self.name}.{name}")

    def log(self, name: str) -> Path:
        """The file with a daemon's output."""
        return self.processes.log(f"{self.name}.{name}")

    def ctr(self, *arguments: str | Path) -> str:
        """Run containerd's `ctr` in the kubelet's image and container namespace."""
        socket = self.layout.containerd_socket
        return self.nsenter(self.processes.path / "ctr", "--address", socket, "--namespace", "k8s.io", *arguments)

    def load(self, archive: Path) -> bool:
        """Import a docker-archive, unless this very image was the last with its tag; True if it was imported."""
        tag, digest = identity(archive)
        record = self.layout.folder / "loaded" / quote(tag, safe="")
        record.parent.mkdir(parents=True, exist_ok=True)
        with locked(
            record.with_name("lock")
        ):  # one image a time: what has no tag yet would be taken for one that lost it
            if record.exists() and record.read_text() == digest:
                return False
            self.ctr("images", "import", "--snapshotter", "overlayfs", archive.absolute())
            record.write_text(digest)
            self._drop_untagged()
        return True

    def _drop_untagged(self) -> None:
        """Forget images whose tag another one has taken; containerd keeps a name `sha256:...` for each."""
        rows = [line.split() for line in self.ctr("images", "list").splitlines()[1:]]
        digests = {row[0]: row[2] for row in rows}
        tagged = {digest for name, digest in digests.items() if not name.startswith("sha256:")}
        untagged = [name for name, digest in digests.items() if digest not in tagged]
        if untagged:
            self.ctr("images", "remove", *untagged)

    def up(self, images: Sequence[Path], wait_for_api: Callable[[], None]) -> bool:
        """Start what doesn't run of namespace, containerd and kubelet; True if anything was started."""
        layout, folder = self.layout, self.layout.folder
        folder.mkdir(parents=True, exist_ok=True)
        layout.sockets.mkdir(parents=True, exist_ok=True)
        network.make_node_network(layout)
        cgroups.make(layout)
        if self.pid("namespace") is None:  # what runs without its holder is in a namespace that nobody can enter
            self.end_all()
            self._make_namespace()
        files = self._write_files()
        path = self.processes.path
        started = self.start(
            "containerd", [path / "containerd", "--config", files["containerd.toml"]], files=[files["containerd.toml"]]
        )
        until(f"containerd of {self.name}", 20, lambda: self.ctr("version"))
        for image in images:
            self.load(image)
        wait_for_api()  # the kubelet would retry its registration more slowly
        arguments = {
            "config": files["kubelet.yaml"],
            "kubeconfig": pki.kubeconfig(self.name),
            "hostname-override": self.name,
            "node-ip": self.address,
            "cert-dir": folder / "kubelet-pki",
        }
        kubelet = [str(path / "kubelet"), *(f"--{key}={value}" for key, value in arguments.items())]
        return self.start("kubelet", kubelet, files=[files["kubelet.yaml"]]) or started

    def _make_namespace(self) -> None:
        made = run_folder() / "made-folders"
        lines = ["mount --no-mtab --make-rshared /"]  # without --no-mtab it leaves a folder /run/mount
        for path in PRIVATE_PATHS:
            if not Path(path).exists():
                with made.open("a") as record:
                    record.write(f"{path}\n")
                Path(path).mkdir(parents=True, exist_ok=True)
            private = self.layout.folder / "private" / path.lstrip("/")
            private.mkdir(parents=True, exist_ok=True)
            lines += [
                f"mount --no-mtab --bind {shlex.quote(str(private))} {path}",
                f"mount --no-mtab --make-shared {path}",
            ]
        ready = self.layout.folder / "namespace-ready"
        ready.unlink(missing_ok=True)
        script = "\n".join(["set -e", *lines, f"touch {shlex.quote(str(ready))}", "exec sleep infinity"])
        self.processes.start(f"{self.name}.namespace", [program("unshare") or "unshare", "--mount", "sh", "-c", script])
        until(f"mounts of {self.name}", 10, ready.exists)

    def _write_files(self) -> dict[str, Path]:
        layout, folder = self.layout, self.layout.folder
        network_folder = folder / "cni"
        contents = {
            "containerd.toml": _CONFIGURATIONS[self.containerd](layout, network_folder, self._runc),
            "cni/10-bridge.conflist": json.dumps(_network_configuration(layout)),
            "kubelet.yaml": yaml.safe_dump(_kubelet_configuration(layout)),
        }
        network_folder.mkdir(exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_text(content)
        return {name: folder / name for name in contents}

    @property
    def _runc(self) -> str | None:
        own = self.processes.path / "runc"
        return str(own) if own.exists() else program("runc")

    def end_all(self) -> None:
        """End kubelet, daemons and pods, then containerd (not its shims: they carry the cluster's mark)."""
        for name in self.processes.names():
            if name.startswith(f"{self.name}.") and name not in {f"{self.name}.{part}" for part in _LAST}:
                self.processes.stop(name)
        cgroups.end_processes(self.layout)
        for part in _LAST:
            self.stop(part)


def _network_configuration(layout: NodeLayout) -> dict[str, object]:
    bridge = {
        "type": "bridge",
        "bridge": layout.pod_bridge,
        "isGateway": False,  # the bridge has its address already; the plugin would make the machine a router
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": layout.pod_network, "gateway": layout.pod_gateway}]],
            "routes": [{"dst": "0.0.0.0/0", "gw": layout.pod_gateway}],
        },
    }
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return {"cniVersion": "0.4.0", "name": "joulepath", "plugins": plugins}


def _containerd_configuration(layout: NodeLayout, network_folder: Path, runc: str | None) -> str:
    unused = [f"io.containerd.snapshotter.v1.{name}" for name in ("blockfile", "btrfs", "devmapper", "erofs", "zfs")]
    return f"""\
version = 3
root = "{layout.folder}/containerd"
state = "{layout.sockets}/state"
disabled_plugins = {json.dumps(unused)}
[plugins.'io.containerd.server.v1.grpc']
  address = "{layout.containerd_socket}"
[plugins.'io.containerd.server.v1.ttrpc']
  address = "{layout.containerd_socket}.ttrpc"
[plugins.'io.containerd.internal.v1.opt']
  path = "{layout.folder}/opt"
[plugins.'io.containerd.nri.v1.nri']
  socket_path = "/run/nri/nri.sock"
  plugin_path = "{layout.folder}/nri/plugins"
  plugin_config_path = "{layout.folder}/nri/conf.d"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  pinned_images = {{sandbox = "localhost/joulepath/pause:1"}}
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{cni_folder()}"]
    conf_dir = "{network_folder}"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    options = {{BinaryName = "{runc}", SystemdCgroup = false}}
"""


def _containerd_1_configuration(layout: NodeLayout, network_folder: Path, runc: str | None) -> str:
    """Its NRI is off unless it is switched on."""
    unused = [f"io.containerd.snapshotter.v1.{name}" for name in ("blockfile", "btrfs", "devmapper", "zfs")]
    return f"""\
version = 2
root = "{layout.folder}/containerd"
state = "{layout.sockets}/state"
disabled_plugins = {json.dumps(unused)}
[grpc]
  address = "{layout.containerd_socket}"
[ttrpc]
  address = "{layout.containerd_socket}.ttrpc"
[plugins.'io.containerd.internal.v1.opt']
  path = "{layout.folder}/opt"
[plugins.'io.containerd.nri.v1.nri']
  disable = false
  socket_path = "/run/nri/nri.sock"
  plugin_path = "{layout.folder}/nri/plugins"
  plugin_config_path = "{layout.folder}/nri/conf.d"
[plugins.'io.containerd.grpc.v1.cri']
  sandbox_image = "localhost/joulepath/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.grpc.v1.cri'.cni]
    bin_dir = "{cni_folder()}"
    conf_dir = "{network_folder}"
  [plugins.'io.containerd.grpc.v1.cri'.containerd]
    snapshotter = "overlayfs"
  [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    options = {{BinaryName = "{runc}", SystemdCgroup = false}}
"""


_CONFIGURATIONS: Final = {1: _containerd_1_configuration, 2: _containerd_configuration}


def _kubelet_configuration(layout: NodeLayout) -> dict[str, object]:
    alone = {"key": "joulepath.dev/other-node", "effect": "NoSchedule"}
    return {
        **({"registerWithTaints": [alone]} if layout.index == OTHER_NODE else {}),
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": layout.address,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": layout.health_port,
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.folder() / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": layout.cgroup,
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": ["pods"],
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "volumePluginDir": str(layout.folder / "volume-plugins"),  # else a folder in the machine's /usr/libexec
        "makeIPTablesUtilChains": False,
        "clusterDomain": "cluster.local",
        "clusterDNS": [DNS_SERVICE_ADDRESS],
        "resolvConf": "/etc/resolv.conf",
        "syncFrequency": "5s",  # the training operator fills its own Secret after its pod has mounted it
        "nodeStatusUpdateFrequency": "5s",
        # What is started anew again and again, and a volume that is over its limit, are waited for in tests.
        "crashLoopBackOff": {"maxContainerRestartPeriod": "2s"},
        "volumeStatsAggPeriod": "10s",
        "imageGCHighThresholdPercent": 100,  # there is no registry to pull an image from again
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi"},
    }
