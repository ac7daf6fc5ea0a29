"""A kernel that lacks what newer ones have, for one thread: a seccomp filter that answers as an older one does.

python -m tests.clocks.peers.old_kernel ADDRESS PROC [POD]     # prints who connects to that socket, by such a kernel
"""

from __future__ import annotations

import ctypes
import errno
import platform
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from joulepath_clocks.peers.cgroup import CgroupIdentity
from joulepath_clocks.peers.refusal import PeerRefusedError

__all__ = ["before_5_3", "before_6_5", "told"]

Answer = TypeVar("Answer")

_GETSOCKOPT: Final = {"x86_64": 55, "aarch64": 209}
_PIDFD_OPEN: Final = 434
_SO_PEERPIDFD: Final = 77
_SET_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ERROR, _ALLOW = 0x00050000, 0x7FFF0000
_NUMBER, _THIRD_ARGUMENT = 0, 32
"""Where struct seccomp_data has them (linux/seccomp.h)."""


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def before_6_5(ask: Callable[[], Answer]) -> Answer:
    """What that gives where there is no SO_PEERPIDFD."""
    return _filtered(ask, pidfd_open=True)


def before_5_3(ask: Callable[[], Answer]) -> Answer:
    """What that gives where there is no pidfd_open either."""
    return _filtered(ask, pidfd_open=False)


def _filtered(ask: Callable[[], Answer], *, pidfd_open: bool) -> Answer:
    answers: list[Answer | BaseException] = []

    def run() -> None:
        try:
            _install(pidfd_open=pidfd_open)
            answers.append(ask())
        except BaseException as error:
            answers.append(error)

    thread = threading.Thread(target=run)  # filters hold for a thread, and end with it
    thread.start()
    thread.join()
    (answer,) = answers
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _install(*, pidfd_open: bool) -> None:
    lines = [
        (_LOAD, 0, 0, _NUMBER),
        (_EQUAL, 0, 3, _GETSOCKOPT[platform.machine()]),
        (_LOAD, 0, 0, _THIRD_ARGUMENT),
        (_EQUAL, 0, 3, _SO_PEERPIDFD),
        (_RETURN, 0, 0, _ERROR | errno.ENOPROTOOPT),
        (_EQUAL, 0, 1, 0xFFFF if pidfd_open else _PIDFD_OPEN),
        (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    program = _Program(len(lines), ctypes.cast(code, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "no seccomp filter can be installed")


def told(connection: socket.socket, proc: Path, made_after_s: float, pod_uid: str | None = None) -> str:
    """`PID POD` of the peer, or the refusal; at the socket of a pod if one is named."""
    try:
        peer = before_6_5(lambda: CgroupIdentity(proc)(connection, made_after_s, pod_uid))
    except PeerRefusedError as refusal:
        return str(refusal)
    peer.close()
    return f"{peer.pid} {peer.pod_uid}"


def main() -> None:
    """Serves one connection."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(sys.argv[1])
        bound_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        listener.listen(1)
        with listener.accept()[0] as connection:
            print(told(connection, Path(sys.argv[2]), bound_s, *sys.argv[3:]), flush=True)


if __name__ == "__main__":
    main()
