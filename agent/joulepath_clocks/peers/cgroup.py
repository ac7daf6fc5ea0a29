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
from joulepath_clocks.peers.process import peer_pidfd, pid_of
from joulepath_clocks.peers.refusal import PeerRefusedError

__all__ = ["CgroupIdentity", "pod_uid_of"]

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

    def __call__(self, connection: socket.socket, made_after_s: float) -> Peer:
        """See Identify."""
        pidfd = peer_pidfd(connection, self._proc, made_after_s)
        try:
            inode = _inode(pidfd)
            pid, pod_uid = self._known.pop(inode) if inode in self._known else self._look_up(pidfd)
            if select.select([pidfd], [], [], 0)[0]:
                raise PeerRefusedError("NoPod", f"process {pid} is gone")
        except BaseException:
            os.close(pidfd)
            raise
        if inode:
            self._known[inode] = pid, pod_uid
            if len(self._known) > _MOST_KNOWN:
                del self._known[next(iter(self._known))]
        return Peer(pid, pidfd, pod_uid)

    def _look_up(self, pidfd: int) -> tuple[int, str]:
        pid = pid_of(pidfd, self._proc)
        try:
            pod_uid = pod_uid_of((self._proc / str(pid) / "cgroup").read_text())
        except OSError:
            pod_uid = None
        if pod_uid is None:
            raise PeerRefusedError("NoPod", f"process {pid} is in no pod's cgroup, or gone")
        return pid, pod_uid


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
