"""Which process is at the other end of the socket: the kernel's word, not the peer's.

`SO_PEERPIDFD` (Linux 6.5) gives a descriptor of the process that connected. Across pid namespaces its number reads as
0 in the agent's own /proc, but the host's /proc, mounted read-only, tells it. No capability and no hostPID is needed.

Before that (RHEL 9 has 5.14, Ubuntu 22.04 5.15) `SO_PEERCRED` tells a number only, and that only to an agent in the
host's pid namespace (`hostPID`). The process may have ended, its number be another's, and its connection live on in a
process that inherited it. So whoever has that number now is believed only if it began before the connection can have
been made, that is, before the queue of connections was last seen empty: a process that lives has had its number all
its life, hence also when the connection was made. The pidfd then stays with it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path
from typing import Final

from joulepath_clocks.peers.refusal import PeerRefusedError

__all__ = ["UNTOLD", "peer_pidfd", "pid_of"]

UNTOLD: Final = ("NoPid", "NoPidfd", "TooYoung")
"""Refusals that say nothing of the peer: the kernel doesn't tell who it is, or not for sure."""

_SO_PEERPIDFD: Final = 77
_CREDENTIALS: Final = struct.Struct("iII")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_START_TIME: Final = 22 - 3
"""Its place in /proc/PID/stat, from the third field on: the second, a name, may hold anything (proc_pid_stat(5))."""


def peer_pidfd(connection: socket.socket, proc: Path, made_after_s: float) -> int:
    """A pidfd of the process that connected, which the caller closes.

    Args:
        connection: To that process.
        proc: The host's /proc.
        made_after_s: A time of CLOCK_BOOTTIME at which the connection hadn't been made yet.

    Raises:
        PeerRefusedError: The kernel doesn't tell, or the process is gone.
    """
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4)
    except OSError:
        return _by_number(connection, proc, made_after_s)
    pidfd = int.from_bytes(packed, "little")
    os.set_inheritable(pidfd, False)
    return pidfd


def pid_of(pidfd: int, proc: Path) -> int:
    """The number of a pidfd's process, as that /proc has it.

    Raises:
        PeerRefusedError: It isn't the host's /proc.
    """
    try:
        text = (proc / "self" / "fdinfo" / str(pidfd)).read_text()
        pid = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pid:"))
    except (OSError, StopIteration, ValueError):
        pid = 0
    if pid <= 0:
        raise PeerRefusedError("NoPid", f"{proc} doesn't show the process that connected: is it the host's /proc?")
    return pid


def _by_number(connection: socket.socket, proc: Path, made_after_s: float) -> int:
    pid, _, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if pid == 0:
        what = "the kernel doesn't tell who connected: use Linux 6.5, or set agent.hostPID in the chart"
        raise PeerRefusedError("NoPidfd", what, final=True)
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        raise _gone(pid) from None
    except OSError as error:
        what = (
            f"the kernel gives no descriptor of process {pid} ({errno.errorcode.get(error.errno or 0)}): use Linux 5.3"
        )
        raise PeerRefusedError("NoPidfd", what, final=True) from None
    try:
        if pid_of(pidfd, proc) != pid:
            raise PeerRefusedError("NoPid", f"{proc} numbers processes otherwise than the agent sees them")
        if _began_before_s(pid, proc) > made_after_s:
            raise PeerRefusedError("TooYoung", f"process {pid} may have begun after its connection; it may ask again")
    except BaseException:
        os.close(pidfd)
        raise
    return pidfd


def _began_before_s(pid: int, proc: Path) -> float:
    """A time of CLOCK_BOOTTIME at which the process lived: the kernel rounds its begin down to a tick."""
    try:
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[_START_TIME]) + 1) / _TICKS_PER_S
    except (OSError, IndexError, ValueError):
        raise _gone(pid) from None


def _gone(pid: int) -> PeerRefusedError:
    return PeerRefusedError("NoPod", f"process {pid} is gone")
