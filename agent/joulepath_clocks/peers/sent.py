"""The pidfd that a peer sends of its own process, where the kernel gives none: so that its end is seen at once.

It is a stranger's descriptor, and may be any file. The kernel's own name for it tells a pidfd before anything is asked
of the file itself; files have no such names, as theirs begin with a slash. Nor is it believed to be the peer's: it
counts if its process is in the pod of the peer. A peer that sends another one's there deceives its own pod, and for no
longer than its markers, its connection and that pod last.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from joulepath_clocks.peers.cgroup import pod_of
from joulepath_clocks.peers.peer import Peer
from joulepath_clocks.peers.process import pid_of
from joulepath_clocks.peers.refusal import PeerRefusedError

__all__ = ["sent_process"]

_PIDFD: Final = re.compile(r"anon_inode:\[pidfd\]|pidfd:\[\d+\]")
"""Before Linux 6.9 and since; in between, they were named by their inode."""


def sent_process(descriptors: Sequence[int], pod_uid: str, proc: Path) -> Peer | None:
    """The process whose pidfd came alone, if it lives and is in that pod. It never waits for whoever serves a file.

    Args:
        descriptors: What a peer sent; still the caller's where it is none.
        pod_uid: The peer's.
        proc: The host's /proc.
    """
    if len(descriptors) != 1:
        return None
    (pidfd,) = descriptors
    try:
        if not _PIDFD.fullmatch(os.readlink(proc / "self" / "fd" / str(pidfd))):
            return None
        pid = pid_of(pidfd, proc)
    except (OSError, PeerRefusedError):
        return None
    its_own = pod_of(pid, proc) == pod_uid
    lives = not select.select([pidfd], [], [], 0)[0]
    return Peer(pid, pidfd, pod_uid, sent=True) if its_own and lives else None
