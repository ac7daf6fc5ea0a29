"""The clock that a GPU settles at under load without a lock: below its highest one where power or heat cap it.

A capped clock is noisy, and whoever waits for a peer draws little and runs at the highest clock: only looks while an
instruction runs count, and the middle one of the last of them is taken. Pure.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

__all__ = ["Settled"]

_KEPT: Final = 101
_LEAST: Final = 15
_TAIL: Final = 0.05


class Settled:
    """The last looks at one GPU's default clock. One thread adds, others may read."""

    def __init__(self, supported_mhz: Sequence[int]) -> None:
        """`supported_mhz`: its clocks, highest first; not empty."""
        self._supported_mhz = tuple(supported_mhz)
        self.step_mhz = min((high - low for high, low in pairwise(supported_mhz)), default=1)
        """Between two clocks of the GPU's grid."""
        self._looks_mhz: deque[int] = deque(maxlen=_KEPT)
        self.clock_mhz: int | None = None
        """Where it settles, a clock of the grid; None while too little is known."""
        self.spread_mhz = 0
        """Width of what nine looks out of ten are in."""

    def add(self, clock_mhz: int) -> None:
        """Takes one more look, of a GPU that computes at default clocks."""
        self._looks_mhz.append(clock_mhz)
        if len(self._looks_mhz) < _LEAST:
            return
        looks = sorted(self._looks_mhz)
        tail = int(_TAIL * len(looks))
        self.spread_mhz = looks[-1 - tail] - looks[tail]
        middle_mhz = statistics.median(looks)
        # Told anew only once it has moved by more than a step: plans are made of it.
        if self.clock_mhz is None or abs(middle_mhz - self.clock_mhz) > self.step_mhz:
            self.clock_mhz = min(self._supported_mhz, key=lambda clock: abs(clock - middle_mhz))

    def forget(self) -> None:
        """Another process runs on the GPU from now on, and may draw more or less."""
        self._looks_mhz.clear()
        self.clock_mhz, self.spread_mhz = None, 0

    def lowest_mhz(self, ordered_mhz: int) -> int:
        """The lowest clock at which an order may be in force, default clocks being 0; 0 where that isn't known."""
        waver_mhz = self.clock_mhz - self.spread_mhz if self.clock_mhz else ordered_mhz
        return max(0, min(ordered_mhz or waver_mhz, waver_mhz) - self.step_mhz)

    def highest_mhz(self, ordered_mhz: int) -> int:
        """The highest one."""
        return (ordered_mhz or self._supported_mhz[0]) + self.step_mhz

    def reached_mhz(self, clock_mhz: int) -> int:
        """The clock that an order leads to, default clocks being 0: what is above where it settles is not reached."""
        top_mhz = self.clock_mhz or self._supported_mhz[0]
        return min(clock_mhz or top_mhz, top_mhz)
