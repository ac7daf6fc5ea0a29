"""Somebody else has set or reset a clock that is ours to set: how that shows, and what follows. Pure.

NVML has no getter for locked clocks. What shows is the SM clock of a GPU that computes, long enough after our last
order: above the clock that we ordered, our lock is gone; below, another has been set, unless the driver names a cause
of its own (power, heat, a brake). One look may have met a switch, so several have to say so.

An order of ours may be the answer, since most who meddle do so once and mean no harm: a health checker's reset, a
profiler's last words. But orders against orders help nobody, and who sets a clock again may mean it: after three of
ours in a minute we yield for ten. To yield is to return the GPU to its default clocks and to order nothing: whose lock
it is NVML doesn't tell, and none of ours may stay; whoever wants a clock of his own sets it once more, and keeps it.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import Final

__all__ = ["Foreign", "OnForeignClock", "Suspicion"]

_CODE: Final = "ForeignClock"
_LOOKS: Final = 3
_LASTING_S: Final = 0.2
_MOST_ORDERS: Final = 3
_WITHIN_S: Final = 60.0
_PAUSE_S: Final = 600.0


class OnForeignClock(StrEnum):
    """What a site wants where somebody else sets a clock."""

    REASSERT = "reassert"
    YIELD = "yield"


class Suspicion:
    """Looks that contradict an order; by what was ordered, since a plan's other clocks may look right by chance."""

    def __init__(self) -> None:
        self._since_s: dict[int, list[float]] = {}

    def look(self, ordered_mhz: int, contradicts: bool, now_s: float) -> tuple[float, ...]:
        """Takes a look at a GPU under this order; the times of all that led there once it is beyond doubt."""
        if not contradicts:
            self._since_s.pop(ordered_mhz, None)
            return ()
        times_s = self._since_s.setdefault(ordered_mhz, [])
        times_s.append(now_s)
        if len(times_s) < _LOOKS or now_s - times_s[0] < _LASTING_S:
            return ()
        self._since_s.clear()
        return tuple(times_s)


class Foreign:
    """What is done about it on one GPU. Times are the monotonic clock's."""

    def __init__(self, policy: OnForeignClock) -> None:
        self._policy = policy
        self._ordered_s: deque[float] = deque(maxlen=_MOST_ORDERS)
        self._yields_until_s = 0.0
        self.reasserted = 0
        """How often a clock was ordered again."""
        self.yielded = 0
        """How often it was yielded."""
        self.told = ""
        """The last time, in words; empty if there was none."""
        self._told_at_s = 0.0

    def yields(self, now_s: float) -> bool:
        """Whether nothing is to be ordered now."""
        return now_s < self._yields_until_s

    def told_lately(self, now_s: float) -> str:
        """The same, as a rank's reason, if it wasn't long ago."""
        return f"{_CODE}: {self.told}" if self.told and now_s < self._told_at_s + _PAUSE_S else ""

    def decide(self, ordered_mhz: int, seen_mhz: int, now_s: float) -> bool:
        """Whether a clock that is not in force any more is to be ordered again; else it is yielded from now on."""
        often = len(self._ordered_s) == _MOST_ORDERS and now_s - self._ordered_s[0] < _WITHIN_S
        again = self._policy is OnForeignClock.REASSERT and not often
        if again:
            self._ordered_s.append(now_s)
            self.reasserted += 1
        else:
            self._yields_until_s = now_s + _PAUSE_S
            self.yielded += 1
        self._told_at_s = now_s
        done = "it was ordered again" if again else f"yielded for {_PAUSE_S / 60:.0f} minutes"
        self.told = (
            f"{_named(ordered_mhz)} ordered, and the SM clock ran at {seen_mhz} MHz: somebody else has set or reset "
            f"it; {done}"
        )
        return again


def _named(ordered_mhz: int) -> str:
    return f"{ordered_mhz} MHz were" if ordered_mhz else "default clocks were"
