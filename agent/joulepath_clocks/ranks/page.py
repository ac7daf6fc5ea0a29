"""The page of memory that a rank shares with the agent: the rank's own, written by its GPU and host, read here."""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Final

from joulepath_trainer.wire.page import PAGE_BYTES, SEALS, MarkerEntry, PageReader, ahead, check_page, following
from joulepath_trainer.wire.protocol import WireError

__all__ = ["SharedPage"]

_MOST_AT_ONCE: Final = 256
"""Markers taken at one look: an honest rank passes a handful, and all ranks of the node share the interpreter."""


class SharedPage:
    """One rank's page. What was enqueued in it before, for another connection, is left alone."""

    def __init__(self, descriptor: int) -> None:
        """Maps what a peer sent, who may be hostile; the descriptor is of no use from here on.

        Raises:
            WireError: It is no page, or one that its owner could cut short, which would kill the agent.
        """
        _check_memory(descriptor)
        try:
            self._memory = mmap.mmap(descriptor, PAGE_BYTES, prot=mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise WireError(f"the shared page can't be mapped: {error}") from None
        self._page = memoryview(self._memory)
        self._reader = PageReader(self._page)
        try:
            check_page(self._page)
        except WireError:
            self.close()
            raise
        self._taken = self._reader.enqueued

    def close(self) -> None:
        """Unmaps it, where nobody has begun to follow it."""
        self._reader.release()
        self._page.release()
        self._memory.close()

    def news(self) -> int | None:
        """The last marker that the GPU has passed, if it has been taken not yet."""
        marker = self._reader.marker
        return marker if marker != self._taken and ahead(marker, self._taken) else None

    def take(self, marker: int) -> list[MarkerEntry] | None:
        """What the markers up to this one mean, oldest first; None if some of them can't be told any more."""
        sequence, self._taken = self._taken, marker
        count = ahead(marker, sequence)
        if count > _MOST_AT_ONCE:
            return None
        entries: list[MarkerEntry] = []
        for _ in range(count):
            sequence = following(sequence)
            entry = self._reader.entry(sequence)
            if entry is None:
                return None
            entries.append(entry)
        return entries


def _check_memory(descriptor: int) -> None:
    """Asks for the seals first: of a file of a peer's own file system, nothing else may be asked, or its owner answers.

    Only memory has seals, and huge pages, which may be missing at a look, come in other sizes.
    """
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        raise WireError("the shared page must be a memfd, it is another kind of file") from None
    if seals & SEALS != SEALS:
        raise WireError(
            f"the shared page must be sealed against shrinking, growing and seals, its seals are {seals:#x}"
        )
    if (size := os.fstat(descriptor).st_size) != PAGE_BYTES:
        raise WireError(f"the shared page must have {PAGE_BYTES} bytes, it has {size}")
