"""File descriptors that peers send: taken with the hello only, and got rid of where they can hurt nobody.

Closing one may wait for whoever serves its file: a peer may serve a file system itself. So what isn't known to be
memory is closed by a thread that nothing else depends on; while too much waits for it, no descriptors are taken at all.
"""

from __future__ import annotations

import array
import os
import queue
import socket
import threading
from collections.abc import Sequence
from typing import Final

__all__ = ["Disposal", "receive"]

_MOST: Final = 8
"""In a message; the kernel closes the others."""
_MOST_WAITING: Final = 64
_NO_MORE: Final = -1


def receive(connection: socket.socket, most_bytes: int, *, descriptors: bool) -> tuple[bytes, list[int]]:
    """A message, and the descriptors that came with it; they are the caller's.

    Raises:
        OSError: None is there, or the connection is broken.
    """
    if not descriptors:
        return connection.recv(most_bytes), []
    found = array.array("i")
    room = socket.CMSG_SPACE(_MOST * found.itemsize)
    message, ancillary, _, _ = connection.recvmsg(most_bytes, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return message, list(found)


class Disposal:
    """Closes descriptors that may be anything."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="disposal", daemon=True).start()

    @property
    def full(self) -> bool:
        """Whether no more should be taken for now."""
        return self._waiting.qsize() > _MOST_WAITING

    def take(self, descriptors: Sequence[int]) -> None:
        """Closes them sometime; never waits."""
        for descriptor in descriptors:
            self._waiting.put(descriptor)

    def stop(self) -> None:
        """Ends it once all are closed."""
        self._waiting.put(_NO_MORE)

    def _run(self) -> None:
        while (descriptor := self._waiting.get()) != _NO_MORE:
            os.close(descriptor)
