"""The progress of one rank: when its next marker is due, and how long none may come."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Collection
from typing import Final

from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent

__all__ = ["Progress", "silence_limit_s"]

_FORGET: Final = 1.05
_SURE: Final = 0.9
"""Share of an instruction's shortest duration in which its end isn't looked for: clocks, and so durations, change."""
_LEAST_SILENCE_S: Final = 2.0
_SILENT_ITERATIONS: Final = 3
_PERIODS: Final = 5


def silence_limit_s(iteration_time_s: float, most_s: float) -> float:
    """How long a rank's markers may stop before its clock is released; `iteration_time_s` is 0 while unknown.

    Never longer than `most_s`: how long iterations last is, in the end, a peer's word.
    """
    return min(most_s, max(_LEAST_SILENCE_S, _SILENT_ITERATIONS * iteration_time_s))


class Progress:
    """What the markers say of the pace of one rank. Times are the monotonic clock's."""

    def __init__(self, stages: Collection[int], now_s: float) -> None:
        """`stages` are those that the rank runs: what it claims of others is not remembered."""
        self.last_marker_s = now_s
        self.expected_s = 0.0
        """When the next marker is due, as far as known."""
        self._stages = stages
        self._begun_at_s = 0.0
        self._shortest_s: dict[tuple[int, str], float] = {}
        self._iteration_begun_s: float | None = None
        self._periods_s: deque[float] = deque(maxlen=_PERIODS)

    @property
    def iteration_time_s(self) -> float:
        """Median of the last iterations; 0 while unknown."""
        return statistics.median(self._periods_s) if self._periods_s else 0.0

    def begin(self, now_s: float) -> None:
        """An iteration begins."""
        if self._iteration_begun_s is not None:
            self._periods_s.append(now_s - self._iteration_begun_s)
        self._iteration_begun_s = self.expected_s = now_s

    def expect(self, entry: MarkerEntry, now_s: float) -> None:
        """The end of an instruction is due as long after its begin as the shortest of its kind lately took."""
        what = (entry.stage, entry.kind)
        if entry.event is MarkerEvent.BEGIN:
            self._begun_at_s = now_s
            self.expected_s = now_s + _SURE * self._shortest_s.get(what, 0.0)
            return
        if entry.event is MarkerEvent.END and entry.stage in self._stages:
            took_s = now_s - self._begun_at_s
            self._shortest_s[what] = min(took_s, self._shortest_s.get(what, took_s) * _FORGET)
        self.expected_s = now_s

    def silent_s(self, now_s: float) -> float:
        """Seconds since its last marker was seen."""
        return now_s - self.last_marker_s
