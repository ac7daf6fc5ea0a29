"""When a counter that moves evenly moves: told from a few moves that were seen closely. Pure."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

__all__ = ["Move", "Rhythm"]

_MOVES: Final = 9
_EVEN_SHARE: Final = 0.08
"""Of the period: what moves that are on a beat may be off it, and seen too late."""
_CLOSE_SHARE: Final = 0.125
_ROUGH_S: Final = 0.001
_ROUGH_SHARE: Final = 0.02
_UNSEEN: Final = 50
"""So many moves may follow each other unseen."""
_DOUBT: Final = 2.0
"""So many times as far off as it was expected to be at most, a move is on the beat: where beats vary, nine don't tell
how much."""
_LOST_SHARE: Final = 0.25
"""Of the period: a move that is so uncertain may as well be the one before or after it."""
_LONGER: Final = 4
"""So many times as long as the pause before is one of which the beats can't be told before there is a period."""
_CLOCKS_DIFFER: Final = 1e-5
"""Relative: of the GPU's clock and ours, as heat changes them."""


@dataclass(frozen=True, slots=True)
class Move:
    """A move of the counter, and by how much its time is uncertain."""

    at_s: float
    off_s: float


class Rhythm:
    """The moves that were seen last, and those that they let expect."""

    def __init__(self) -> None:
        self._seen: deque[Move] = deque(maxlen=_MOVES)
        self._spread_s = 0.0
        """By how much they are off the beat."""
        self._drift_s = 0.0
        """By how much an expected move is less certain than the one before it."""
        self.period_s = 0.0
        """Seconds from one move to the next; 0 until there are enough."""
        self.is_even = False
        """Whether the moves are on a beat, so that others needn't be seen."""

    def see(self, move: Move) -> bool:
        """A move was seen; whether those that weren't, since the one before, may be told by the beat.

        On a host that looks late only those that were seen closely are remembered.
        """
        if self.period_s and move.off_s > _CLOSE_SHARE * self.period_s:
            return True
        kept_time = not self.is_even or self._is_on_beat(move)
        if not kept_time or self.has_lost_count(move.at_s):
            self._forget()
        self._seen.append(move)
        if len(self._seen) == _MOVES:
            kept_time &= self._learn()
        return kept_time

    def _is_on_beat(self, move: Move) -> bool:
        nearest = min(self.around(move.at_s), key=lambda one: abs(one.at_s - move.at_s))
        return abs(nearest.at_s - move.at_s) <= _DOUBT * nearest.off_s + move.off_s

    def _forget(self) -> None:
        self._seen.clear()
        self.period_s, self.is_even = 0.0, False

    def _learn(self) -> bool:
        """Takes the beat from the moves seen last; whether it has not lost one."""
        times_s, off_s = zip(*((one.at_s, one.off_s) for one in self._seen), strict=True)
        gaps_s = [after - before for before, after in pairwise(times_s)]
        usual_s = self.period_s if self.is_even else statistics.median(gaps_s)
        beats = list(accumulate((max(1, round(gap_s / usual_s)) for gap_s in gaps_s), initial=0))
        self.period_s = (times_s[-1] - times_s[0]) / beats[-1]
        self._drift_s = (off_s[0] + off_s[-1]) / beats[-1] + _CLOCKS_DIFFER * self.period_s
        off_beats_s = [abs(at - times_s[0] - beat * self.period_s) for at, beat in zip(times_s, beats, strict=True)]
        self._spread_s = max(off_beats_s)
        even_s, was_even = _EVEN_SHARE * self.period_s, self.is_even
        self.is_even = self._spread_s < even_s if was_even else self._spread_s + max(off_s) < even_s
        if lost := was_even and not self.is_even:
            self._forget()
        return not lost

    def has_lost_count(self, at_s: float) -> bool:
        """Whether nobody can count the beats from the last move that was seen to a time."""
        if len(self._seen) < 2:
            return False
        if self.period_s:
            return self.around(at_s)[1].off_s >= _LOST_SHARE * self.period_s
        return at_s - self._seen[-1].at_s > _LONGER * (self._seen[-1].at_s - self._seen[-2].at_s)

    def around(self, at_s: float) -> tuple[Move, Move]:
        """The moves that are expected before and after a time; there is a period."""
        beat = int((at_s - self._seen[-1].at_s) // self.period_s)
        return self._expect(beat), self._expect(beat + 1)

    def next(self, move: Move) -> Move:
        """The one that is expected after another."""
        return self.around(move.at_s + self.period_s / 2)[1]

    def must_see(self, move: Move, beats: int = 0) -> bool:
        """Whether the move so many beats after an expected one is to be seen closely: it is known roughly, or none was
        seen for long."""
        if not self.is_even or move.off_s + beats * self._drift_s > max(_ROUGH_S, _ROUGH_SHARE * self.period_s):
            return True
        return move.at_s > self._seen[-1].at_s + (_UNSEEN - beats) * self.period_s

    def _expect(self, beat: int) -> Move:
        last = self._seen[-1]
        off_s = max(last.off_s, self._spread_s) + max(0, beat) * self._drift_s
        return Move(last.at_s + beat * self.period_s, off_s)
