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
from dataclasses import dataclass
from typing import Final

from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent

__all__ = ["Progress", "silence_limit_s"]

_LEAST_SILENCE_S: Final = 2.0
_SILENT_ITERATIONS: Final = 3
_PERIODS: Final = 5

_CLOSE_S: Final = 0.00004
_CLOSE_SHARE: Final = 0.005
"""Between two looks for an end when it usually comes, of its instruction's duration."""
_FAR_SHARE: Final = 0.25
_FAR_SHARE_AT_FIRST: Final = 0.1
"""Added to that before and after, of the time to when it usually comes; or since the begin, where that isn't known."""
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
_FORGETS: Final = 0.98
_WARY: Final = 1.5
"""So many times as far off an end may be before which a begin comes that a raise goes by."""
_WIDENS: Final = 1.5
"""An end that was there at the first look for it came earlier than thought, nobody knows when."""
_VARIES_LEAST: Final = 0.005
_VARIES_AT_FIRST: Final = 0.1
_MOST_KNOWN: Final = 4096


def silence_limit_s(iteration_time_s: float, most_s: float) -> float:
    """How long a rank's markers may stop before its clock is released; `iteration_time_s` is 0 while unknown.

    Never longer than `most_s`: how long iterations last is, in the end, a peer's word.
    """
    return min(most_s, max(_LEAST_SILENCE_S, _SILENT_ITERATIONS * iteration_time_s))


@dataclass(slots=True)
class _Usual:
    """An instruction at a clock."""

    lasts_s: float
    varies_s: float
    """How far from that it was lately."""
    known: int = 1
    """How often it was seen to end."""

    def learn(self, lasted_s: float) -> None:
        self.known += 1
        off_s = lasted_s - self.lasts_s
        self.varies_s = max(_FORGETS * self.varies_s, abs(off_s))
        self.lasts_s += max(_LEARNS, 1 / self.known) * off_s


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
        self._usual_end_s = now_s
        self._early_s = self._lasted_s = 0.0
        """How much before that its end may be; how long the last one lasted."""
        self._close_s = _WAITING_S
        self._far_share = _FAR_SHARE
        self.patient = False
        """Whether nothing is ordered by the begin that comes next."""
        self._looked = True
        """Whether its end has been looked for in vain since it was due."""
        self._usual: dict[tuple[int, str, int, int], _Usual] = {}
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

    def _begin(self, runs: tuple[int, str, int, int], now_s: float) -> None:
        self._runs, self._begun_at_s = runs, now_s
        self._usual_end_s, self._early_s = now_s, 0.0
        self._far_share = _FAR_SHARE_AT_FIRST
        if (usual := self._usual.get(runs)) is not None:
            self._usual_end_s = now_s + usual.lasts_s
            self._early_s = max(usual.varies_s, _VARIES_LEAST * usual.lasts_s)
            self._close_s, self._far_share = max(_CLOSE_S, _CLOSE_SHARE * usual.lasts_s), _FAR_SHARE
        self._looked = usual is None

    def _end(self, lasted_s: float) -> None:
        self._lasted_s = lasted_s
        if self._runs[0] not in self._stages:
            return
        if len(self._usual) >= _MOST_KNOWN:
            self._usual.clear()
        if (usual := self._usual.get(self._runs)) is None:
            self._usual[self._runs] = _Usual(lasted_s, _VARIES_AT_FIRST * lasted_s)
        elif self._looked:
            usual.learn(lasted_s)
        else:
            usual.varies_s = min(_WIDENS * usual.varies_s, usual.lasts_s)

    def look_at_s(self, now_s: float) -> float:
        """When to look next."""
        if self._begun_at_s is not None:
            due_s = self._usual_end_s - (1.0 if self.patient else _WARY) * self._early_s
            if now_s < due_s:
                return min(due_s, now_s + _LONGEST_S)
            self._looked = True
            return now_s + min(_SILENT_LOOK_S, self._close_s + self._far_share * abs(now_s - self._usual_end_s))
        if self.silent_s(now_s) > _SILENT_S:
            return now_s + _SILENT_LOOK_S
        most_s = _PATIENT_MOST_S if self.patient else _WAITING_MOST_S
        return now_s + min(most_s, max(_WAITING_S, _WAITING_SHARE * self._lasted_s))

    def silent_s(self, now_s: float) -> float:
        """Seconds since its last marker was seen."""
        return now_s - self.last_marker_s
