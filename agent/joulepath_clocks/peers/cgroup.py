"""Which pod a process is in: its cgroup, as the host's /proc shows it.

The kubelet makes a cgroup for each pod, with its UID in the name; what the runtime calls the containers below it
doesn't matter. The UID is followed for as long as the process lives, by its pidfd.
"""

from __future__ import annotations

import os
import re
import select
import socket
from pathlib import Path
from typing import Final

from joulepath_clocks.peers.peer import Peer
from joulepath_clocks.peers.process import UNTOLD, peer_pidfd, pid_of
from joulepath_clocks.peers.refusal import PeerRefusedError

__all__ = ["CgroupIdentity", "pod_of", "pod_uid_of"]

_MOST_KNOWN: Final = 1024
# The kubelet's names (k8s.io/kubernetes pkg/kubelet/cm, cgroup_manager_linux.go and pod_container_manager_linux.go):
# .../pod<uid>/<container> with the driver cgroupfs, ...-pod<uid with _>.slice/<container>.scope with systemd, and
# ...-pod<uid with _>.slice:cri-containerd:<container> where the kubelet has the one driver and containerd the other
_POD: Final = re.compile(
    r"(?:^|[/-])pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?(?=[/:]|$)"
)
_OF_USERS: Final = "/user.slice/"
"""Where systemd lets users of the node make cgroups of any name (Delegate=, systemd.resource-control(5))."""


def pod_uid_of(cgroup: str) -> str | None:
    """The pod's UID in the text of /proc/PID/cgroup (v1, v2 or both); None if in no pod, or in more than one.

    Containers inside a pod can make cgroups below their own only, so the first match from the root is the kubelet's.
    """
    found = set()
    for line in cgroup.splitlines():
        path = line.split(":", 2)[-1]
        match = _POD.search(path)
        if match is not None and _OF_USERS not in path[: match.start() + 1]:
            found.add(match[1].replace("_", "-"))
    return found.pop() if len(found) == 1 else None


class CgroupIdentity:
    """Identify by pidfd, the host's /proc and the cgroup.

    A process that connects again and again is known by the inode of its pidfd, which belongs to no other (Linux 6.9):
    it costs a few system calls, no look into /proc.
    """

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self._known: dict[int, tuple[int, str]] = {}
        """Pid and pod by that inode, the last ones that connected."""

    def __call__(self, connection: socket.socket, made_after_s: float, pod_uid: str | None = None) -> Peer:
        """See Identify. At a pod's own socket it is a second check, where the kernel tells."""
        try:
            pidfd = peer_pidfd(connection, self._proc, made_after_s)
        except PeerRefusedError as refusal:
            if pod_uid is None or refusal.code not in UNTOLD:
                raise
            return Peer(0, None, pod_uid)
        try:
            pid, found = self._look_up(pidfd, pod_uid)
            if select.select([pidfd], [], [], 0)[0]:
                raise PeerRefusedError("NoPod", f"process {pid} is gone")
            if found is None:
                raise PeerRefusedError("NoPod", f"process {pid} is in no pod's cgroup, or gone")
            if pod_uid not in (None, found):
                raise PeerRefusedError("OtherPod", f"process {pid} of pod {found} came by the socket of pod {pod_uid}")
        except BaseException:
            os.close(pidfd)
            raise
        return Peer(pid, pidfd, found)

    def _look_up(self, pidfd: int, pod_uid: str | None) -> tuple[int, str | None]:
        """Number and pod of a process; that pod where the cgroup names none, or isn't shown."""
        if (inode := _inode(pidfd)) in self._known:
            self._known[inode] = self._known.pop(inode)
            return self._known[inode]
        try:
            pid = pid_of(pidfd, self._proc)
        except PeerRefusedError:
            if pod_uid is None:
                raise
            return 0, pod_uid
        found = pod_of(pid, self._proc)
        if found is not None and inode:
            self._known[inode] = pid, found
            if len(self._known) > _MOST_KNOWN:
                del self._known[next(iter(self._known))]
        return pid, found or pod_uid


def pod_of(pid: int, proc: Path) -> str | None:
    """The pod's UID of a process; None if it is in no pod, or gone."""
    try:
        return pod_uid_of((proc / str(pid) / "cgroup").read_text())
    except OSError:
        return None


def _inode(pidfd: int) -> int:
    """The inode of a pidfd, 0 where all have the same: that of all anonymous files."""
    status = os.fstat(pidfd)
    return 0 if status.st_dev == _ANONYMOUS else status.st_ino


def _anonymous_device() -> int:
    descriptor = os.eventfd(0)
    try:
        return os.fstat(descriptor).st_dev
    finally:
        os.close(descriptor)


_ANONYMOUS: Final = _anonymous_device()
