"""/proc/PID/cgroup of a pod's process on nodes that the lab hasn't, after what was published of such nodes.

{uid} is the pod's UID, {unit} the same as systemd has it (`podUID.slice`, with `_` for `-`), {id} the container's. The
lab's own nodes have cgroup v1 and the driver cgroupfs: tests/agent/peers/test_placing.py asks those.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["TREES"]

_SYSTEMD: Final = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{unit}"
_V1: Final = "13:freezer:{0}\n12:cpuset:{0}\n11:files:/\n10:hugetlb:{0}\n4:memory:{0}\n1:name=systemd:{0}\n"

TREES: Final[Mapping[str, str]] = {
    # containerd: "slice:cri-containerd:id" (internal/cri/server/helpers.go) is what runc makes SLICE/PREFIX-ID.scope of
    "v2, systemd, containerd": f"0::{_SYSTEMD}/cri-containerd-{{id}}.scope\n",
    "v2, systemd, containerd, Guaranteed": "0::/kubepods.slice/kubepods-{unit}/cri-containerd-{id}.scope\n",
    "v2, cgroupfs, containerd": "0::/kubepods/burstable/pod{uid}/{id}\n",
    # containerd/nri#227, OpenShift with CRI-O
    "v2, systemd, CRI-O": f"0::{_SYSTEMD}/crio-{{id}}.scope\n",
    "v2, systemd, CRI-O, below the container's own": f"0::{_SYSTEMD}/crio-{{id}}.scope/container\n",
    "v2, cgroupfs, CRI-O": "0::/kubepods/burstable/pod{uid}/crio-{id}\n",
    # opencontainers/runc#4620, with a controller (files) that has no pods
    "v1, systemd, CRI-O": _V1.format(f"{_SYSTEMD}/crio-{{id}}.scope"),
    # kontena/pharos-cluster#440
    "v1, systemd, docker": _V1.format(
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-{unit}/docker-{id}.scope"
    ),
    # containers/crun#729
    "v1, cgroupfs, docker": _V1.format("/kubepods/besteffort/pod{uid}/{id}"),
    # cgroups(7): v1 controllers beside a v2 hierarchy without any; systemd and runc keep the same paths in both
    "hybrid, systemd, containerd": _V1.format(f"{_SYSTEMD}/cri-containerd-{{id}}.scope")
    + "0::/system.slice/containerd.service\n",
    "hybrid, cgroupfs, containerd": _V1.format("/kubepods/burstable/pod{uid}/{id}") + "0::/\n",
    # hubblo-org/scaphandre#146: the kubelet's driver is systemd, containerd's cgroupfs
    "v2, one driver each": "0::/system.slice/containerd.service/kubepods-burstable-{unit}:cri-containerd:{id}\n",
    # kubernetes-sigs/kind#3947, containerd/nri#227
    "kind": "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
    "kubelet-kubepods-besteffort-{unit}/cri-containerd-{id}.scope\n",
    "kind, from its host": "0::/system.slice/docker-1f.scope/kubelet.slice/kubelet-kubepods.slice/"
    "kubelet-kubepods-{unit}/cri-containerd-{id}.scope\n",
    # cgroup_namespaces(7): seen from a container with a cgroup namespace of its own, as agents have on v2
    "v2, relative, cgroupfs": "0::/../../pod{uid}/{id}\n",
    "v2, relative, systemd": "0::/../../kubepods-burstable-{unit}/cri-containerd-{id}.scope\n",
    "v2, relative, systemd, another QoS": "0::/../../../kubepods-{unit}/crio-{id}.scope\n",
}
"""By cgroup version, cgroup driver and runtime."""
