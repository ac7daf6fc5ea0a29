"""What Python gives back only when it collects garbage, in a process that lives for months.

That is more than circles: of tuples that end it keeps up to 2,000 of each length for the next ones, until a collection
of everything. Those that are made of generators aren't taken from there, so that each one adds to what is kept. Python
collects everything by itself only where a quarter of what it looks at is new: in days, or never.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Final

__all__ = ["collect_often"]

_EVERYTHING: Final = 2


def collect_often() -> None:
    """From now on, each collection is followed by one of everything, but for what is there now: so that is short."""
    gc.collect()
    gc.freeze()
    collected = SimpleQueue[str]()

    def follow(phase: str, info: Mapping[str, int]) -> None:
        if phase == "stop" and info["generation"] < _EVERYTHING:
            collected.put(phase)

    def collect() -> None:
        while collected.get():
            gc.collect()

    gc.callbacks.append(follow)
    threading.Thread(target=collect, name="garbage", daemon=True).start()
