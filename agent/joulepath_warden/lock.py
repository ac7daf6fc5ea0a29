"""One of a kind a node: whoever holds a lock. The kernel takes it back when its holder dies, however that dies."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import Final

__all__ = ["Lock"]

log = logging.getLogger(__name__)

_AGAIN_S: Final = 0.2


class Lock:
    """A file of root's that one process holds at a time: whoever may read it may hold it."""

    def __init__(self, path: Path, *, makes: bool = True) -> None:
        """Opens it, and doesn't take it yet. It is made unless `makes` is False: then it may stand where none can be.

        Raises:
            OSError: It can't be opened or made.
        """
        self.path = path
        self._names = makes
        if makes:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, (os.O_RDWR | os.O_CREAT if makes else os.O_RDONLY) | os.O_CLOEXEC, 0o600)

    def take(self) -> bool:
        """Takes it for the rest of the process's life, unless another process has it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if self._names:
            with contextlib.suppress(OSError):  # on a full disk it has no name, and holds all the same
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, f"{socket.gethostname()}, process {os.getpid()}".encode(), 0)
        return True

    def wait(self, what: str, stop: threading.Event, limit_s: float | None = None) -> bool:
        """Takes it once `what` holds it no more; False where it is to stop, or the limit is over, before."""
        deadline_s = None if limit_s is None else time.monotonic() + limit_s
        told = False
        while not self.take():
            if not told:
                told = True
                log.warning("%s (%s) holds %s: waiting for it to end", what, self.holder, self.path)
            if stop.wait(_AGAIN_S) or (deadline_s is not None and time.monotonic() > deadline_s):
                log.warning("the lock is still held by %s: nothing is done here", self.holder)
                return False
        return True

    def close(self) -> None:
        """Gives it back before the process ends."""
        os.close(self._descriptor)

    @property
    def holder(self) -> str:
        """Who took it last: the pod's name, and the process in it."""
        return os.pread(self._descriptor, 300, 0).decode(errors="replace")
