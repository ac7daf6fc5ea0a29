"""Raise early, lower late: when a clock is ordered within an iteration. Pure.

At the end of an instruction the clock of the next one is wished. Where the next one needs a higher clock, it is ordered
ahead, at begin + predicted duration of the instruction before - p95 lag to that clock (not before that begin). So an
instruction never begins at a lower clock than its own, but for durations that come out shorter.

After the last instruction come gradient reduction and optimizer. If that tail is longer than four lags to default
clocks, or its length is unknown, it runs at default clocks; else the first clock of the next iteration is wished at
once, since two more switches would cost more than they save. What lasts longer than such a tail usually does is no
tail: an evaluation or a checkpoint, which has default clocks a lag later.

The planner's referee replays plans by the same rule; a test holds both together.
"""

from __future__ import annotations

from typing import Final

from joulepath_clocks.gpus.wish import DEFAULT, Wish, height
from joulepath_rules import TAIL_LAGS

__all__ = ["is_short_tail", "wish_at_begin", "wish_at_end", "wish_in_tail"]


_LEAST_PATIENCE_S: Final = 0.001
"""Also where clocks switch at once: markers are seen so much late."""


def wish_at_begin(clock_mhz: int, after_mhz: int, begin_s: float, duration_s: float, lag_up_s: float) -> Wish:
    """The wish at the begin of an instruction that runs at `clock_mhz` and is followed by one at `after_mhz`."""
    if height(after_mhz) > height(clock_mhz):
        return Wish(clock_mhz, after_mhz, max(begin_s, begin_s + duration_s - lag_up_s))
    return Wish(clock_mhz)


def wish_at_end(after_mhz: int) -> Wish:
    """The wish at its end."""
    return Wish(after_mhz)


def wish_in_tail(clock_mhz: int, end_s: float, tail_s: float, lag_up_s: float) -> Wish:
    """The wish at the end of an iteration's work, where its clock, or the next one's, stays for a tail as usual."""
    if clock_mhz == DEFAULT:
        return Wish(DEFAULT)
    return Wish(clock_mhz, DEFAULT, end_s + tail_s + max(lag_up_s, _LEAST_PATIENCE_S))


def is_short_tail(tail_s: float | None, lag_up_s: float) -> bool:
    """Whether the clock of the next iteration is wished before the tail already."""
    return tail_s is not None and tail_s <= TAIL_LAGS * lag_up_s
