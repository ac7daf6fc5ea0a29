"""The progress of one rank: when to look for its next marker, and how long none may come.

A look costs a core some microseconds, a marker that is seen late a clock that is switched late. The end of an
instruction, which clocks are lowered at, is due when it usually comes at this clock, give or take how much that varies:
then looks follow each other the closer, the nearer the usual time is. Between two instructions, where nothing is
ordered, and before an end is due, they are few.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Collection
from typing import Final

from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent

__all__ = ["Progress", "silence_limit_s"]

_LEAST_SILENCE_S: Final = 2.0
_SILENT_ITERATIONS: Final = 3
_PERIODS: Final = 5

_CLOSE_S: Final = 0.00007
_CLOSE_SHARE: Final = 0.007
"""Between two looks for an end when it usually comes, of its instruction's duration."""
_FAR_SHARE: Final = 0.2
"""Added to that before and after, of the time to when it usually comes."""
_WAITING_S: Final = 0.0005
_WAITING_SHARE: Final = 0.08
"""Between two looks for a begin, of the duration of the instruction before."""
_WAITING_MOST_S: Final = 0.005
"""Where a raise goes by that begin: the later it is seen, the earlier the raise."""
_PATIENT_MOST_S: Final = 0.02
_LONGEST_S: Final = 0.2
_SILENT_LOOK_S: Final = 0.02
_SILENT_S: Final = 2.0

_LEARNS: Final = 0.1
_FORGETS: Final = 0.95
_WIDENS: Final = 1.3
"""An end that was there at the first look for it came earlier than thought, nobody knows when."""
_VARIES_LEAST: Final = 0.005
_VARIES_AT_FIRST: Final = 0.03
_MOST_KNOWN: Final = 4096


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
        self._stages = stages
        self._begun_at_s: float | None = None
        """When the instruction that runs began; None between two."""
        self._runs: tuple[int, str, int, int] = (0, "", 0, 0)
        """That instruction, and the clock that was ordered when it began."""
        self._due_s = self._usual_end_s = now_s
        self._close_s = self._waiting_s = _WAITING_S
        self.patient = False
        """Whether nothing is ordered by the begin that comes next."""
        self._looked = True
        """Whether its end has been looked for in vain since it was due."""
        self._usual_s: dict[tuple[int, str, int, int], tuple[float, float]] = {}
        """Of each: how long it lasts, and how far from that it was lately."""
        self._iteration_begun_s: float | None = None
        self._periods_s: deque[float] = deque(maxlen=_PERIODS)

    @property
    def iteration_time_s(self) -> float:
        """Median of the last iterations; 0 while unknown."""
        return statistics.median(self._periods_s) if self._periods_s else 0.0

    def passed(self, entry: MarkerEntry, ordered_mhz: int, now_s: float) -> None:
        """A marker was seen, while this clock was ordered."""
        if entry.event is MarkerEvent.BEGIN:
            self._begin((entry.stage, entry.kind, entry.microbatch, ordered_mhz), now_s)
            return
        if entry.event is MarkerEvent.END and self._begun_at_s is not None:
            self._end(now_s - self._begun_at_s)
        elif entry.event is MarkerEvent.STEP_BEGIN:
            if self._iteration_begun_s is not None:
                self._periods_s.append(now_s - self._iteration_begun_s)
            self._iteration_begun_s = now_s
        self._begun_at_s = None
        self._due_s = now_s

    def _begin(self, runs: tuple[int, str, int, int], now_s: float) -> None:
        self._runs, self._begun_at_s = runs, now_s
        self._due_s = self._usual_end_s = now_s
        if (usual := self._usual_s.get(runs)) is not None:
            lasts_s, varies_s = usual
            self._usual_end_s = now_s + lasts_s
            self._due_s = self._usual_end_s - max(varies_s, _VARIES_LEAST * lasts_s)
            self._close_s = max(_CLOSE_S, _CLOSE_SHARE * lasts_s)
        self._looked = usual is None

    def _end(self, lasted_s: float) -> None:
        most_s = _PATIENT_MOST_S if self.patient else _WAITING_MOST_S
        self._waiting_s = min(most_s, max(_WAITING_S, _WAITING_SHARE * lasted_s))
        if self._runs[0] not in self._stages:
            return
        if len(self._usual_s) >= _MOST_KNOWN:
            self._usual_s.clear()
        lasts_s, varies_s = self._usual_s.get(self._runs, (lasted_s, _VARIES_AT_FIRST * lasted_s))
        if self._looked:
            varies_s = max(_FORGETS * varies_s, abs(lasted_s - lasts_s))
            self._usual_s[self._runs] = lasts_s + _LEARNS * (lasted_s - lasts_s), varies_s
        else:
            self._usual_s[self._runs] = lasts_s, min(_WIDENS * varies_s, lasts_s)

    def look_at_s(self, now_s: float) -> float:
        """When to look next."""
        if now_s < self._due_s:
            return min(self._due_s, now_s + _LONGEST_S)
        if self._begun_at_s is not None:
            self._looked = True
            return now_s + min(_SILENT_LOOK_S, self._close_s + _FAR_SHARE * abs(now_s - self._usual_end_s))
        return now_s + (_SILENT_LOOK_S if self.silent_s(now_s) > _SILENT_S else self._waiting_s)

    def silent_s(self, now_s: float) -> float:
        """Seconds since its last marker was seen."""
        return now_s - self.last_marker_s
