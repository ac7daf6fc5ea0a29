"""What a rank's markers do and cost on this GPU: the calls that the trainer makes, by the trainer's own driver module.

The page has the words that the GPU writes at `MARKER_OFFSET`, and from `TIMES_OFFSET` on the moment (CLOCK_MONOTONIC,
ns) at which the host enqueued each, for whoever maps the page as well.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from statistics import median, quantiles
from typing import Any, Final

from joulepath_load.work import NoWorkError, Work
from joulepath_trainer.marking.cuda import Driver

__all__ = ["MARKER_OFFSET", "MOST_WRITES", "PAGE_BYTES", "TIMES_OFFSET", "Markers"]

MARKER_OFFSET: Final = 64
TIMES_OFFSET: Final = 4096
MOST_WRITES: Final = 500
PAGE_BYTES: Final = TIMES_OFFSET + 4096
_TIME: Final = struct.Struct("<q")
_CALLS: Final = 200
_KERNELS: Final = 100
_ROUNDS: Final = 7
_BETWEEN_S: Final = 0.002
_LATE_S: Final = 2.0


class Markers:
    """Markers on a page that another process maps."""

    def __init__(self, work: Work, page: mmap.mmap) -> None:
        """Lets the GPU write the page.

        Raises:
            NoWorkError: There is no driver in this process.
            CudaError: The driver refuses.
        """
        driver = Driver.in_use()
        if driver is None:
            raise NoWorkError("this process has no CUDA context")
        self._work, self._driver, self._page = work, driver, page
        self._words = memoryview(page).cast("I")
        self._marker = MARKER_OFFSET // 4
        self._on_device = driver.map_host_page(ctypes.addressof(ctypes.c_char.from_buffer(page))) + MARKER_OFFSET

    def write(self, count: int) -> dict[str, Any]:
        """Writes 1 to `count` on an idle stream, and says whether a write waits for the work that is ahead of it."""
        for value in range(1, min(count, MOST_WRITES) + 1):
            self._work.finish()
            _TIME.pack_into(self._page, TIMES_OFFSET + (value - 1) * _TIME.size, time.monotonic_ns())
            self._driver.write_word(self._work.stream(), self._on_device, value)
            time.sleep(_BETWEEN_S)
        return {"ordered": self._is_ordered(count + 1)}

    def cost(self) -> dict[str, Any]:
        """Seconds of each call of a marker on the host, and of a marker between two kernels on the GPU."""
        stream, driver = self._work.stream(), self._driver
        events = [driver.create_event() for _ in range(_CALLS)]
        pairs = list(pairwise(events))
        record = _seconds([partial(driver.record_event, one, stream) for one in events])
        write = _seconds([partial(driver.write_word, stream, self._on_device, 0)] * _CALLS)
        self._work.finish()
        query = _seconds([partial(driver.event_passed, one) for one in events])
        elapsed = _seconds([partial(driver.seconds_between, *two) for two in pairs])
        rounds = [(self._kernels_s(events, marked=True), self._kernels_s(events, marked=False)) for _ in range(_ROUNDS)]
        gpu_s = median((marked - bare) / _KERNELS for marked, bare in rounds)
        return {"record": record, "write": write, "query": query, "elapsed": elapsed, "gpu_s": max(0.0, gpu_s)}

    def _is_ordered(self, value: int) -> bool:
        """Whether a write behind a kernel is seen only once an event behind that kernel, ahead of it, has passed."""
        stream, event = self._work.stream(), self._driver.create_event()
        for _ in range(_KERNELS):
            self._work.kernel()
        self._driver.record_event(event, stream)
        self._driver.write_word(stream, self._on_device, value)
        deadline_s = time.monotonic() + _LATE_S
        while time.monotonic() < deadline_s:
            if self._words[self._marker] == value:
                return self._driver.event_passed(event)
        return False

    def _kernels_s(self, events: list[int], *, marked: bool) -> float:
        """Seconds of some kernels on the GPU's clock, with or without a marker behind each."""
        stream, first, last = self._work.stream(), events[0], events[1]
        self._work.finish()
        self._driver.record_event(first, stream)
        for at in range(_KERNELS):
            self._work.kernel()
            if marked:
                self._driver.record_event(events[2 + at], stream)
                self._driver.write_word(stream, self._on_device, 0)
        self._driver.record_event(last, stream)
        self._work.finish()
        return self._driver.seconds_between(first, last)


def _seconds(calls: list[Callable[[], object]]) -> dict[str, float]:
    took = []
    for call in calls:
        begun = time.perf_counter()
        call()
        took.append(time.perf_counter() - begun)
    return {"median": median(took), "p95": quantiles(took, n=20)[-1], "n": len(took)}
