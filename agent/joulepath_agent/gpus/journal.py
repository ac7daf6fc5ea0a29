"""The journal: which GPUs this agent may have left locked.

A GPU's UUID is on the disk before its clock is first touched and leaves it when the clock is reset for good. An agent
that starts finds there what a killed one left behind; NVML itself can't tell who locked a clock.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

__all__ = ["Journal"]


class Journal:
    """A small file, one UUID a line, replaced whole and synced."""

    def __init__(self, state_dir: Path) -> None:
        """Reads what is there.

        Raises:
            OSError: The folder can't be made or read.
        """
        state_dir.mkdir(parents=True, exist_ok=True)
        self._path = state_dir / "locked-gpus"
        self._lock = threading.Lock()
        text = self._path.read_text() if self._path.exists() else ""
        self._uuids = frozenset(text.split())

    @property
    def uuids(self) -> frozenset[str]:
        """GPUs that may be locked."""
        return self._uuids

    def add(self, uuid: str) -> None:
        """Notes a GPU; on the disk when this returns.

        Raises:
            OSError: It isn't on the disk: its clock may not be touched.
        """
        with self._lock:
            if uuid not in self._uuids:
                self._replace(self._uuids | {uuid})

    def remove(self, uuid: str) -> None:
        """Strikes a GPU whose clock has been reset."""
        with self._lock:
            if uuid in self._uuids:
                self._replace(self._uuids - {uuid})

    def _replace(self, uuids: frozenset[str]) -> None:
        fresh = self._path.with_suffix(".new")
        with fresh.open("w") as file:
            file.writelines(f"{uuid}\n" for uuid in sorted(uuids))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._uuids = uuids
