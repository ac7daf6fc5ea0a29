"""The memory that this process shares with its node's agents: one page for life, its own, given to each that it asks.

Reconnects make nothing new: the descriptor, the mapping, what the CUDA driver was told of it and its events stay. The
page is sealed, so that nobody who maps it is killed by its being cut short, and written once, so that it counts as
memory of this process.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from typing import Final

from joulepath_trainer.marking.marks import Marker, Marks
from joulepath_trainer.wire.page import PAGE_BYTES, SEALS, PageWriter, format_page

__all__ = ["OwnPage"]

_NOT_EXECUTABLE: Final = 0x8
"""MFD_NOEXEC_SEAL of Linux 6.3: kernels may be told to refuse memory without it."""


class OwnPage:
    """The page of this process."""

    def __init__(self) -> None:
        self.descriptor = _sealed_memory()
        """For the agent."""
        self._memory = mmap.mmap(self.descriptor, PAGE_BYTES)
        self.writer = PageWriter(memoryview(self._memory))
        # Schedules that overlap forward and backward may run them in two threads. A signal's handler, which may
        # evaluate, runs in the midst of what its thread does.
        self.lock = threading.RLock()
        self._marks: dict[str, Marks] = {}

    def marks(self, marker: Marker) -> Marks:
        """The markers of a GPU's stream in it, or of the host; the same ones each time."""
        found = self._marks.get(marker.place)
        if found is None:
            found = self._marks[marker.place] = marker.open(self._memory, self.writer)
        return found


def _sealed_memory() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        descriptor = os.memfd_create("joulepath-page", flags | _NOT_EXECUTABLE)
    except OSError:
        descriptor = os.memfd_create("joulepath-page", flags)
    content = bytearray(PAGE_BYTES)
    format_page(memoryview(content))
    os.write(descriptor, content)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    return descriptor
