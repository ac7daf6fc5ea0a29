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
# The kubelet's names: .../pod<uid>/<container> (cgroupfs), ...-pod<uid with _>.slice/<container>.scope (systemd)
_POD: Final = re.compile(
    r"(?:^|[/-])pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?(?=/|$)"
)


def peer_process(connection: socket.socket, proc: Path) -> tuple[int, int]:
    """The peer's pid as that /proc numbers it, and a pidfd of it, which the caller closes.

    Raises:
        PeerRefusedError: The kernel is too old, the process is gone, or that /proc isn't the host's.
    """
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4)
    except OSError as error:
        raise PeerRefusedError(
            "NoPidfd", f"the kernel doesn't tell who connected ({error}): Linux 6.5 is needed"
        ) from None
    pidfd = int.from_bytes(packed, "little")
    os.set_inheritable(pidfd, False)
    try:
        text = (proc / "self" / "fdinfo" / str(pidfd)).read_text()
        pid = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pid:"))
    except (OSError, StopIteration, ValueError):
        pid = 0
    if pid <= 0:
        os.close(pidfd)
        what = f"{proc} doesn't show the process that connected: is it the host's /proc?"
        raise PeerRefusedError("NoPid", what, passing=True)
    return pid, pidfd


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
    """Identify by pidfd, the host's /proc and the cgroup."""

    def __init__(self, proc: Path) -> None:
        self._proc = proc

    def __call__(self, connection: socket.socket) -> Peer:
        """See Identify."""
        pid, pidfd = peer_process(connection, self._proc)
        try:
            pod_uid = pod_uid_of((self._proc / str(pid) / "cgroup").read_text())
            gone = bool(select.select([pidfd], [], [], 0)[0])
        except OSError:
            pod_uid, gone = None, True
        if pod_uid is None or gone:
            os.close(pidfd)
            raise PeerRefusedError("NoPod", f"process {pid} is in no pod's cgroup, or gone")
        return Peer(pid, pidfd, pod_uid)
