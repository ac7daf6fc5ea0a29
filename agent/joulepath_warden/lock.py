"""One warden a node: whoever holds the lock file. The kernel takes it back when its holder dies, however that dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from pathlib import Path
from typing import Final

__all__ = ["Lock"]

_NAME: Final = "warden.lock"


class Lock:
    """The lock file of a state folder."""

    def __init__(self, state_dir: Path) -> None:
        """Opens it, and doesn't take it yet.

        Raises:
            OSError: The folder or the file can't be made.
        """
        state_dir.mkdir(parents=True, exist_ok=True)
        self.path = state_dir / _NAME
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> bool:
        """Takes it for the rest of the process's life, unless another process has it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        with contextlib.suppress(OSError):  # on a full disk it has no name, and holds all the same
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{socket.gethostname()}, process {os.getpid()}".encode(), 0)
        return True

    @property
    def holder(self) -> str:
        """Who took it last: the pod's name, and the process in it."""
        return os.pread(self._descriptor, 300, 0).decode(errors="replace")
