"""How a rank marks a place in its work: by its GPU's stream, or by the host where the host itself does the work.

Markers by the host are true only where the host doesn't run ahead of the work: computing on CPUs. A device of another
kind, with a queue that can't be marked, isn't observed at all.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from joulepath_trainer.marking.cuda import Driver, StreamMarks
from joulepath_trainer.wire.page import MARKER_OFFSET, PageWriter

__all__ = ["HostMarks", "Marker", "Marks", "choose_marker"]


class Marks(Protocol):
    """Markers of one shared page, and the times at which they were passed."""

    def place(self) -> int | None:
        """Where a marker goes now; None where none can be enqueued."""

    def stamp(self, place: int, sequence: int) -> int:
        """Enqueues a marker; returns a time stamp for it."""

    def passed(self, stamp: int) -> bool:
        """Whether the work has come to the stamp; never waits."""

    def seconds(self, begin: int, end: int) -> float:
        """Seconds between two stamps that were passed."""

    def recycle(self, stamps: Iterable[int]) -> None:
        """Takes back stamps that are needed no more."""


class HostMarks:
    """Markers by the host, at the moment of the call."""

    def __init__(self, page: PageWriter) -> None:
        self._page = page

    def place(self) -> int | None:
        """Always here."""
        return 0

    def stamp(self, place: int, sequence: int) -> int:
        """Passes the marker at once; the stamp is CLOCK_MONOTONIC in ns."""
        self._page.pass_marker(sequence)
        return time.monotonic_ns()

    def passed(self, stamp: int) -> bool:
        """Always."""
        return True

    def seconds(self, begin: int, end: int) -> float:
        """Seconds between two stamps."""
        return (end - begin) / 1e9

    def recycle(self, stamps: Iterable[int]) -> None:
        """Nothing to take back."""


@dataclass(frozen=True, slots=True)
class Marker:
    """What marks this rank's work, chosen before there is a page to mark it in."""

    name: str
    """"stream" or "host", as the agent is told."""
    gpu_uuid: str | None
    place: str
    """Where it marks: markers of one place are the same."""
    ready: Callable[[], bool]
    """Whether a page may be opened now; not while a CUDA graph is captured, which it could spoil."""
    open: Callable[[mmap.mmap, PageWriter], Marks]


def choose_marker(device: str) -> Marker:
    """Chooses by what this process uses at the moment; loads and initialises nothing.

    Args:
        device: The name of the torch device that computes, such as "cpu", "cuda:1", or "cuda" for the current one.

    Raises:
        RuntimeError: The device's queue can't be marked.
    """
    torch: Any = sys.modules.get("torch")
    kind, _, number = device.partition(":")
    if torch is not None and torch.cuda.is_initialized():
        ordinal = int(number) if number and kind == "cuda" else torch.cuda.current_device()
        driver, stream, of = Driver.loaded(), _torch_stream(torch, ordinal), "torch"
        context = 0 if driver is None else driver.context_of(ordinal)
    else:
        driver, stream, of = Driver.in_use(), _legacy_default_stream, "default"
        context = 0 if driver is None else driver.current_context()
        if driver is None and kind == "cpu":
            return Marker("host", None, "host", lambda: True, lambda _, writer: HostMarks(writer))
    if driver is None or not context:
        raise RuntimeError(f"work on a device {device!r} without a CUDA context can't be marked")

    def open_stream_marks(page: mmap.mmap, _: PageWriter) -> Marks:
        # The GPU may write a marker long after the host has lost interest, even while the interpreter ends: the page
        # is never unmapped (nor taken from the GPU, which could mean to wait for it). The process's end does both.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(page))
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        return StreamMarks(driver, stream, address, MARKER_OFFSET, context)

    def ready() -> bool:
        with driver.within(context):
            return not driver.capturing(stream())

    with driver.within(context):
        uuid = driver.current_gpu()
    return Marker("stream", uuid, f"{uuid} {of}", ready, open_stream_marks)


def _legacy_default_stream() -> int:
    return 0


def _torch_stream(torch: Any, ordinal: int) -> Callable[[], int]:
    """The current stream of this thread on that GPU."""
    # What torch's own compiler calls; the public way makes a Stream object each time, 10 times the cost.
    raw = getattr(torch._C, "_cuda_getCurrentRawStream", None)
    if raw is not None:
        return lambda: int(raw(ordinal))
    return lambda: int(torch.cuda.current_stream(ordinal).cuda_stream)
