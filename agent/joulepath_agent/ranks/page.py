"""The page of memory that a rank shares with the agent: made here, written by the rank's GPU and host, read here."""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Final

from joulepath_trainer.wire.page import PAGE_BYTES, MarkerEntry, PageReader

__all__ = ["SharedPage"]

_MOST_AT_ONCE: Final = 256
"""Markers taken at one look: an honest rank passes a handful, and the follower serves all ranks of the node."""


class SharedPage:
    """One rank's page. It can't be resized by the rank, which would kill the agent."""

    def __init__(self) -> None:
        self.fd = _sealed_memory()
        """For the peer; the endpoint closes it when it has been sent."""
        page = memoryview(mmap.mmap(self.fd, PAGE_BYTES))
        PageReader.format(page)
        self._reader = PageReader(page)
        self._taken = 0

    def news(self) -> int | None:
        """The last marker that the GPU has passed, if it has been taken not yet."""
        marker = self._reader.marker
        return None if marker == self._taken else marker

    def take(self, marker: int) -> list[MarkerEntry] | None:
        """What the markers up to this one mean, oldest first; None if some of them can't be told any more."""
        first, self._taken = self._taken + 1, marker
        if not 0 <= marker - first < _MOST_AT_ONCE:
            return None
        entries = [self._reader.entry(sequence) for sequence in range(first, marker + 1)]
        return None if any(entry is None for entry in entries) else [entry for entry in entries if entry is not None]


def _sealed_memory() -> int:
    fd = os.memfd_create("joulepath-page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, PAGE_BYTES)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd
