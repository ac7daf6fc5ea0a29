"""The shared page of a rank: its layout, byte by byte, and its two sides. It tells the agent where the GPU is.

It belongs to the training process, for all its life: memory of its own (a memfd), sealed so that nobody can resize it.
Little endian, `PAGE_BYTES` long:

    offset 0   u32  magic
    offset 4   u32  version
    offset 8   u32  marker: sequence number of the last marker that the GPU has passed, written on the GPU's stream
    offset 12  u32  enqueued: sequence number of the last marker that the host has enqueued
    offset 4096     ring of RING entries of 16 bytes: (u32 sequence, u32 iteration, u8 event, u8 kind, u16 stage,
                    u16 microbatch, u16 zero); the entry of marker n is at n % RING. The end of a step has in the place
                    of a microbatch how it ended, an `Ending`

The host writes a marker's ring entry before it enqueues the write of the marker, so that whoever sees a marker finds
what it means. Sequence numbers start at 1 and go on over all connections, after `LAST` from 1 again; 0 means that none
was passed. An entry whose sequence differs from the one asked for has been overwritten: the reader is more than RING
markers late. What was enqueued before a reader came is none of its business: it begins after `enqueued`, and a marker
that the GPU passes late, from before, means nothing to it.

A step may end twice: it is parted from the next one as soon as that is known, be it in its midst or once it has ended.
Who doesn't know the endings takes both for ends, and a trainer that doesn't know them ends every step whole.

The two numbers of the head are written and read whole. An entry isn't: who reads it looks at its sequence last once
more, as it may be overwritten meanwhile, sequence first.
"""

from __future__ import annotations

import fcntl
import struct
from enum import IntEnum
from typing import Final, NamedTuple

from joulepath_trainer.wire.protocol import KINDS, PAIR, VERSION, WireError

__all__ = [
    "ENTRY",
    "LAST",
    "MARKER_OFFSET",
    "PAGE_BYTES",
    "RING",
    "RING_OFFSET",
    "SEALS",
    "Ending",
    "MarkerEntry",
    "MarkerEvent",
    "PageReader",
    "PageWriter",
    "ahead",
    "check_page",
    "following",
    "format_page",
]

_MAGIC: Final = 0x4850_4C4A  # "JLPH" as bytes in memory
_HEAD: Final = struct.Struct("<IIII")
ENTRY: Final = struct.Struct("<IIBBHHH")
RING: Final = 4096
RING_OFFSET: Final = 4096
MARKER_OFFSET: Final = 8
_ENQUEUED_OFFSET: Final = 12
PAGE_BYTES: Final = RING_OFFSET + RING * ENTRY.size
_U32: Final = struct.Struct("<I")
LAST: Final = 2**32 - 1
"""The last sequence number: instructions of a millisecond get there in weeks."""
SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
"""Who maps a file that is cut short is killed when it looks."""


class MarkerEvent(IntEnum):
    """What a marker marks."""

    STEP_BEGIN = 1
    BEGIN = 2
    END = 3
    STEP_END = 4


class Ending(IntEnum):
    """How a training step has ended."""

    WHOLE = 0
    BROKEN = 1
    """Sooner than it should: by an exception, without a step of the optimizer, or by an evaluation in it."""
    PARTED = 2
    """Something else than the next one follows on it, from here on: an evaluation, or a step that isn't observed."""


_EVENTS: Final = {int(event): event for event in MarkerEvent}
_KINDS: Final = {0: "", **{ord(kind): kind for kind in (*KINDS, PAIR)}}


class MarkerEntry(NamedTuple):
    """What a marker means."""

    sequence: int
    iteration: int
    event: MarkerEvent
    kind: str
    """F, B, I, W, or P of a pair, told by its forward; "" for the begin and end of a step."""
    stage: int
    microbatch: int

    @property
    def ending(self) -> int:
        """Of the end of a step, how it ended; what isn't an `Ending` is a newer trainer's. Of all else, 0."""
        return self.microbatch if self.event is MarkerEvent.STEP_END else Ending.WHOLE


class PageWriter:
    """The trainer's side of a shared page."""

    def __init__(self, page: memoryview, sequence: int = 0) -> None:
        """`sequence` is that of the last marker that was enqueued."""
        self._page = page
        # `pack_into` clears first what it writes: a reader would see a marker of 0 in between.
        self._marker = page[MARKER_OFFSET : MARKER_OFFSET + _U32.size].cast("I")
        self._enqueued = page[_ENQUEUED_OFFSET : _ENQUEUED_OFFSET + _U32.size].cast("I")
        self._sequence = sequence

    def announce(self, event: MarkerEvent, iteration: int, kind: str = "", stage: int = 0, microbatch: int = 0) -> int:
        """Writes what the next marker means and returns the sequence number that the GPU is to write."""
        self._sequence = following(self._sequence)
        at = RING_OFFSET + (self._sequence % RING) * ENTRY.size
        code = ord(kind) if kind else 0
        ENTRY.pack_into(self._page, at, self._sequence, iteration & 0xFFFFFFFF, event, code, stage, microbatch, 0)
        self._enqueued[0] = self._sequence
        return self._sequence

    def pass_marker(self, sequence: int) -> None:
        """Writes the marker from the host: where the GPU's stream can't."""
        self._marker[0] = sequence


class PageReader:
    """The agent's side of a shared page. What it reads comes from a peer that may be hostile."""

    def __init__(self, page: memoryview) -> None:
        self._page = page
        # `unpack_from` reads byte by byte: it would see half of a number that is being written.
        self._marker = page[MARKER_OFFSET : MARKER_OFFSET + _U32.size].cast("I")
        self._enqueued = page[_ENQUEUED_OFFSET : _ENQUEUED_OFFSET + _U32.size].cast("I")

    def release(self) -> None:
        """Holds the page no more."""
        self._marker.release()
        self._enqueued.release()

    @property
    def marker(self) -> int:
        """Sequence number of the last marker that the GPU has passed; 0 if none."""
        return self._marker[0]

    @property
    def enqueued(self) -> int:
        """Sequence number of the last marker that the host has enqueued."""
        return self._enqueued[0]

    def entry(self, sequence: int) -> MarkerEntry | None:
        """What a marker means; None where it was overwritten or makes no sense."""
        at = RING_OFFSET + (sequence % RING) * ENTRY.size
        found, iteration, event, kind, stage, microbatch, _ = ENTRY.unpack_from(self._page, at)
        (still,) = _U32.unpack_from(self._page, at)
        if not found == still == sequence or event not in _EVENTS or kind not in _KINDS:
            return None
        return MarkerEntry(sequence, iteration, _EVENTS[event], _KINDS[kind], stage, microbatch)


def following(sequence: int) -> int:
    """The sequence number after this one."""
    return sequence % LAST + 1


def ahead(sequence: int, of: int) -> int:
    """By how many markers it comes after another one, be it that numbers begin anew in between; 0 where it doesn't."""
    distance = (sequence - of) % LAST
    return distance if distance <= LAST // 2 else 0


def format_page(page: memoryview) -> None:
    """The trainer prepares a fresh page."""
    _HEAD.pack_into(page, 0, _MAGIC, VERSION, 0, 0)


def check_page(page: memoryview) -> None:
    """The agent checks what it was given.

    Raises:
        WireError: The page isn't one of this version.
    """
    if len(page) < PAGE_BYTES:
        raise WireError(f"the shared page must have {PAGE_BYTES} bytes, it has {len(page)}")
    magic, version, _, _ = _HEAD.unpack_from(page, 0)
    if magic != _MAGIC or version != VERSION:
        raise WireError(f"the shared page must be of version {VERSION}, it is {magic:#x} version {version}")
