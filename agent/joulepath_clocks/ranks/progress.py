"""The progress of one rank: when to look for its next marker, and how long none may come.

A look costs a core some microseconds, a marker that is seen late a clock that is switched late. The end of an
instruction, which clocks are lowered at, is looked for from a little before it usually comes at this clock, by how much
that varies; then looks follow each other the closer, the likelier it has come. A little earlier is early enough even
though one end in seven is there by then, unless a raise goes by the begin that follows and leaves no time for that.
How long a rank waits between two instructions is learnt in the same way: nothing is ordered at a begin, but one that is
seen late makes the raises that go by it as much too early. Before either is due, looks are few.
"""

from __future__ import annotations

import math
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
_FIRST_LOOK: Final = -1.1
"""When an end is looked for first, in how much it varies from when it usually comes. That and the steps that follow are
those that make looks + 20 x lateness least, for a normal distribution (found by dynamic programming)."""
_STEP: Final = 0.36
_STEP_FALLS: Final = 0.15
_LEAST_STEP: Final = 0.22
_LATE_SHARE: Final = 0.25
"""Of the time that an end is late by, until the next look: perhaps it doesn't come for long."""
_NEW_SHARE: Final = 0.1
"""The same, of the time since the begin, where nothing is known of an instruction."""
_WAITING_S: Final = 0.0005
_WAITING_SHARE: Final = 0.08
"""Between two looks for a begin, of the duration of the instruction before."""
_WAITING_MOST_S: Final = 0.005
"""Where a raise goes by that begin soon: the later it is seen, the earlier the raise."""
_EARLY_SHARE: Final = 0.05
_CLOSE_SHARE: Final = 0.01
"""So much of the time until that raise is little to lose, and so much is nothing to look more closely for."""
_PATIENT_MOST_S: Final = 0.02
_SAFE_SHARE: Final = 0.5
"""Of the duration of the instruction before: what begins sooner than ever isn't over within that."""
_LONGEST_S: Final = 0.2
_SILENT_LOOK_S: Final = 0.02
_SILENT_S: Final = 2.0

_LEARNS: Final = 0.1
_SOON: Final = 1.7
"""Over the number of ends: more than a mean's 1, since what was taken at first is known to be too much."""
_FORGETS: Final = 0.98
_WARY: Final = 1.5
"""So many times as far off as lately an end may be, before which a begin comes that a raise goes by soon."""
_DEVIATION: Final = 1.25
"""Of a normal distribution, in mean absolute deviations."""
_EARLIER: Final = 1.6
"""How far off an end is on average that was there at the first look for it, in deviations."""
_NO_CHANCE: Final = 4
"""So many such ends one after the other: it lasts less than was thought, and is learnt anew."""
_WAITS: Final = -1
_BLUR: Final = 0.3
"""Standard deviation of a time somewhere between two, in what lies between them."""
_VARIES_LEAST: Final = 0.003
_VARIES_AT_FIRST: Final = 0.1
_MOST_KNOWN: Final = 4096


def silence_limit_s(iteration_time_s: float, most_s: float) -> float:
    """How long a rank's markers may stop before its clock is released; `iteration_time_s` is 0 while unknown.

    Never longer than `most_s`: how long iterations last is, in the end, a peer's word.
    """
    return min(most_s, max(_LEAST_SILENCE_S, _SILENT_ITERATIONS * iteration_time_s))


@dataclass(slots=True)
class _Usual:
    """An instruction at a clock, or the wait after one."""

    lasts_s: float
    varies_s: float
    """Standard deviation."""
    early_s: float
    """How far off it was lately, at most."""
    known: int = 1
    """How often it was seen to end."""
    earlier: int = 0
    """How often it was there at the first look, lately without a break."""

    def learn(self, off_s: float) -> None:
        """It ended so much later than usually."""
        self.known += 1
        self.early_s = max(_FORGETS * self.early_s, abs(off_s))
        self.varies_s += max(_LEARNS, _SOON / self.known) * (_DEVIATION * abs(off_s) - self.varies_s)
        self.lasts_s += max(_LEARNS, 1 / self.known) * off_s


class Progress:
    """What the markers say of the pace of one rank. Times are the monotonic clock's."""

    def __init__(self, stages: Collection[int], now_s: float) -> None:
        """`stages` are those that the rank runs: what it claims of others is not remembered."""
        self.last_marker_s = now_s
        self._stages = stages
        self._computes = False
        self._since_s: float | None = None
        """When the instruction that runs began, or the wait for the next one; None where that isn't known."""
        self._runs: tuple[int, str, int, int] = (0, "", 0, 0)
        """That instruction, and the clock that was ordered when it began; of a wait the one before, and `_WAITS`."""
        self._usual_end_s = now_s
        self._varies_s = self._early_s = self._lasted_s = 0.0
        """How much its end varies from that, usually and at most; how long the last one lasted."""
        self.raise_in_s = math.inf
        """How long after the begin that comes next a raise is ordered that goes by it."""
        self._looked = True
        """Whether its end has been looked for in vain since it was due."""
        self._pause_s = 0.0
        """Between the last two looks for a begin: it came somewhere in there."""
        self._usual: dict[tuple[int, str, int, int], _Usual] = {}
        self._iteration_begun_s: float | None = None
        self._periods_s: deque[float] = deque(maxlen=_PERIODS)

    @property
    def iteration_time_s(self) -> float:
        """Median of the last iterations; 0 while unknown."""
        return statistics.median(self._periods_s) if self._periods_s else 0.0

    def passed(self, entry: MarkerEntry, ordered_mhz: int, now_s: float) -> None:
        """A marker was seen, while this clock was ordered."""
        event = entry.event
        blur_s = self._blur_s(now_s)
        if self._since_s is not None and event is (MarkerEvent.END if self._computes else MarkerEvent.BEGIN):
            self._learn(now_s - self._since_s)
        self._computes, self._since_s, self._varies_s = event is MarkerEvent.BEGIN, None, 0.0
        if self._computes or event is MarkerEvent.END:
            runs = entry.stage, entry.kind, entry.microbatch, ordered_mhz if self._computes else _WAITS
            self._expect(runs, now_s - blur_s / 2, _BLUR * blur_s)
        elif event is MarkerEvent.STEP_BEGIN:
            if self._iteration_begun_s is not None:
                self._periods_s.append(now_s - self._iteration_begun_s)
            self._iteration_begun_s = now_s

    def _blur_s(self, now_s: float) -> float:
        """How long ago a begin that is seen now may have come."""
        pause_s, self._pause_s = self._pause_s, 0.0
        if not self._varies_s:
            return pause_s
        return min(pause_s, max(0.0, now_s - self._usual_end_s + _WARY * self._early_s))

    def _expect(self, runs: tuple[int, str, int, int], since_s: float, blur_s: float) -> None:
        """It began then, give or take the blur."""
        self._runs, self._since_s, self._usual_end_s = runs, since_s, since_s
        if (usual := self._usual.get(runs)) is not None:
            self._usual_end_s = since_s + usual.lasts_s
            self._varies_s = max(usual.varies_s, _VARIES_LEAST * usual.lasts_s, blur_s)
            self._early_s = max(usual.early_s, blur_s)
        self._looked = usual is None

    def _learn(self, lasted_s: float) -> None:
        if self._computes:
            self._lasted_s = lasted_s
        if self._runs[0] not in self._stages:
            return
        if len(self._usual) >= _MOST_KNOWN:
            self._usual.clear()
        if (usual := self._usual.get(self._runs)) is None:
            self._usual[self._runs] = _Usual(lasted_s, _VARIES_AT_FIRST * lasted_s, _VARIES_AT_FIRST * lasted_s)
        elif self._looked:
            usual.earlier = 0
            usual.learn(lasted_s - usual.lasts_s)
        else:
            usual.earlier += 1
            if self.raise_in_s < _WARY * usual.early_s:
                usual.early_s = min(_WARY * usual.early_s, usual.lasts_s)
            usual.learn(-_EARLIER * usual.varies_s)
            if usual.earlier == _NO_CHANCE:
                del self._usual[self._runs]

    def look_at_s(self, now_s: float) -> float:
        """When to look next."""
        late_s = now_s - self._usual_end_s
        if self._computes:
            return now_s + self._until_end_s(late_s)
        if self.silent_s(now_s) > _SILENT_S:
            return now_s + _SILENT_LOOK_S
        self._pause_s = self._until_begin_s(late_s)
        return now_s + self._pause_s

    def _until_begin_s(self, late_s: float) -> float:
        early_s = max(_WAITING_MOST_S, _EARLY_SHARE * self.raise_in_s)
        pause_s = min(_PATIENT_MOST_S, early_s, max(_WAITING_S, _WAITING_SHARE * self._lasted_s))
        if not self._varies_s:
            return pause_s
        if (due_in_s := self._due_in_s(late_s)) > pause_s:
            return min(due_in_s, _LONGEST_S, max(pause_s, _SAFE_SHARE * self._lasted_s))
        self._looked = True
        return min(pause_s, max(_WAITING_S, self._varies_s, _LATE_SHARE * late_s, _CLOSE_SHARE * self.raise_in_s))

    def _until_end_s(self, late_s: float) -> float:
        varies_s = self._varies_s
        if not varies_s:
            return min(_SILENT_LOOK_S, _CLOSE_S + _NEW_SHARE * late_s)
        if (due_in_s := self._due_in_s(late_s)) > _CLOSE_S:
            return min(due_in_s, _LONGEST_S)
        self._looked = True
        step_s = max(_STEP * varies_s - _STEP_FALLS * late_s, _LEAST_STEP * varies_s, _LATE_SHARE * late_s)
        return min(_SILENT_LOOK_S, max(_CLOSE_S, step_s))

    def _due_in_s(self, late_s: float) -> float:
        return min(_FIRST_LOOK * self._varies_s, self.raise_in_s - _WARY * self._early_s) - late_s

    def silent_s(self, now_s: float) -> float:
        """Seconds since its last marker was seen."""
        return now_s - self.last_marker_s
