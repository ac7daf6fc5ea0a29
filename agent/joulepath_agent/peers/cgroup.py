"""Who is at the other end of the socket: the kernel's word, not the peer's.

`SO_PEERPIDFD` (Linux 6.5) gives a descriptor of the process that connected. Across pid namespaces its number reads as
0 in the agent's own /proc, but the host's /proc, mounted read-only, tells it; from there the cgroup tells the pod. No
capability and no hostPID is needed. The descriptor stays with the process: a pid that is used again can't deceive.
"""

from __future__ import annotations

import os
import re
import select
import socket
from pathlib import Path
from typing import Final

from joulepath_agent.peers.peer import Peer
from joulepath_agent.peers.refusal import PeerRefusedError

__all__ = ["CgroupIdentity", "peer_process", "pod_uid_of"]

_SO_PEERPIDFD: Final = 77
_MOST_KNOWN: Final = 1024
# The kubelet's names: .../pod<uid>/<container> (cgroupfs), ...-pod<uid with _>.slice/<container>.scope (systemd)
_POD: Final = re.compile(
    r"(?:^|[/-])pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?(?=/|$)"
)


def peer_process(connection: socket.socket, proc: Path) -> tuple[int, int]:
    """The peer's pid as that /proc numbers it, and a pidfd of it, which the caller closes.

    Raises:
        PeerRefusedError: The kernel is too old, the process is gone, or that /proc isn't the host's.
    """
    pidfd = _pidfd(connection)
    pid = _pid(pidfd, proc)
    if pid <= 0:
        os.close(pidfd)
        raise _hidden(proc)
    return pid, pidfd


def _pidfd(connection: socket.socket) -> int:
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4)
    except OSError as error:
        raise PeerRefusedError(
            "NoPidfd", f"the kernel doesn't tell who connected ({error}): Linux 6.5 is needed", final=True
        ) from None
    pidfd = int.from_bytes(packed, "little")
    os.set_inheritable(pidfd, False)
    return pidfd


def _pid(pidfd: int, proc: Path) -> int:
    """0 if that isn't told."""
    try:
        text = (proc / "self" / "fdinfo" / str(pidfd)).read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pid:"))
    except (OSError, StopIteration, ValueError):
        return 0


def pod_uid_of(cgroup: str) -> str | None:
    """The pod's UID in the text of /proc/PID/cgroup (v1 or v2; cgroupfs or systemd driver); None if in no pod.

    Containers inside a pod can make cgroups below their own only, so the first match from the root is the kubelet's.
    """
    for line in cgroup.splitlines():
        path = line.split(":", 2)[-1]
        if (found := _POD.search(path)) is not None:
            return found[1].replace("_", "-")
    return None


class CgroupIdentity:
    """Identify by pidfd, the host's /proc and the cgroup.

    A process that connects again and again is known by the inode of its pidfd, which belongs to no other (Linux 6.9):
    it costs a few system calls, no look into /proc.
    """

    def __init__(self, proc: Path) -> None:
        self._proc = proc
        self._known: dict[int, tuple[int, str]] = {}
        """Pid and pod by that inode, the last ones that connected."""

    def __call__(self, connection: socket.socket) -> Peer:
        """See Identify."""
        pidfd = _pidfd(connection)
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
        pid = _pid(pidfd, self._proc)
        if pid <= 0:
            raise _hidden(self._proc)
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


def _hidden(proc: Path) -> PeerRefusedError:
    return PeerRefusedError("NoPid", f"{proc} doesn't show the process that connected: is it the host's /proc?")


def _anonymous_device() -> int:
    descriptor = os.eventfd(0)
    try:
        return os.fstat(descriptor).st_dev
    finally:
        os.close(descriptor)


_ANONYMOUS: Final = _anonymous_device()
