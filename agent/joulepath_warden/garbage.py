"""What Python gives back only when it collects garbage, in a process that lives for months.

That is more than circles: of tuples that end it keeps up to 2,000 of each length for the next ones, until a collection
of everything. Those that are made of generators aren't taken from there, so that each one adds to what is kept. As
Python collects everything after 70,000 more allocations than releases, and only if a quarter is new, that takes days.
"""

from __future__ import annotations

import gc
from typing import Final

__all__ = ["collect_often"]

_ALLOCATIONS: Final = 700
"""Between two collections, as Python has it."""


def collect_often() -> None:
    """From now on, every third collection is one of everything but what is there now, which stays: so it is short."""
    gc.collect()
    gc.freeze()
    gc.collect()  # Python compares what is new with what the last one left: nothing
    gc.set_threshold(_ALLOCATIONS, 0, 0)
