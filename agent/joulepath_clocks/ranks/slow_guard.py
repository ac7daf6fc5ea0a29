"""The slow guard: a plan that makes iterations a little longer than allowed is refused once that is sure.

What the fast guard lets pass it finds by comparing plan blocks with the control blocks beside them, for as long as the
plan runs. An observation is a pair: the logarithm of plan time over control time, over what is allowed and the margin.
However iterations hang together within a block, the pair is one number; and as the order within a pair is drawn, drift
and a neighbour's bursts shift it up as often as down. Beyond three usual ones it is cut, so that a burst is one pair
and not a verdict.

The test is an e-detector (Shin, Ramdas and Rinaldo, "E-detectors", 2024): evidence that began at each of the last
pairs is summed, so that a plan that was well for weeks has nothing to draw upon. Each evidence is the Bayes factor of
the t-test with a normal prior on the effect's size (Gönen et al., "The Bayesian two-sample t test", 2005), which never
needs to know the noise and holds at any time (Lai, "On confidence sequences", 1976). While the plan is no slower than
allowed and margin, at least 100,000 pairs pass between two false alarms on average, of normal noise: with one pair in
fifty and iterations of 3 s that is one in five years. `make bench-guard` counts them for other noise.

A plan of which no pair can be measured any more is refused as well: nobody would see what it costs.

Pure; the standard library only.
"""

from __future__ import annotations

import statistics
from collections import deque
from math import exp, log, log1p
from typing import Final

from joulepath_rules import MARGIN, Applied, Arm, Length, Sort, counted

__all__ = ["SlowGuard"]

_PAIRS_TO_FALSE_ALARM: Final = 100_000
_REMEMBERED: Final = 64
_PRIOR: Final = 10.0
"""Variance of the effect's prior, in that of a pair: half a percent to five, where pairs vary by up to one."""
_LEAST_DEVIATION: Final = 0.0025
"""What a pair varies by at least, whatever it seems: a few pairs may agree by chance."""
_MOST: Final = 0.05
"""Beyond that, the fast guard judges."""
_USUAL: Final = 3.0
_LEAST_USUAL: Final = 0.01
_KNOWN: Final = 8
"""Pairs from which on it is known what is usual."""
_MOST_LOST: Final = 8
"""Pairs of which none could be measured, one after the other."""


class _Pairs:
    """Puts pairs together from the periods of iterations, one by one."""

    def __init__(self) -> None:
        self._applied: Applied | None = None
        self._lengths: list[Length] = []
        self._periods_s: list[float] = []
        self._first: tuple[Applied, float, Sort] | None = None
        """The first block of a pair, the mean of its counted iterations, and of which sort these are."""
        self._pair = -1
        """The last that has begun."""
        self.open = False
        """Whether it may become whole yet."""
        self.lost = 0
        """How many didn't since the last that did."""

    def period(self, applied: Applied, length: Length, period_s: float) -> tuple[float, float] | None:
        """Takes the period of one more iteration; the mean seconds of plan and control where a pair is whole.

        As in a report, the last iteration of a block doesn't count, as clocks are on their way to the next one's at its
        end. A block that was cut short, or whose markers were missed, never becomes whole; nor does a pair where one
        has iterations that were disturbed or end before an evaluation, and the other has others.
        """
        if applied != self._applied:
            self._applied, self._lengths, self._periods_s = applied, [], []
        if applied.block < 0 or applied.arm is Arm.SWEEP:
            return None
        if applied.block // 2 != self._pair:
            self.lost += self.open
            self._pair, self.open = applied.block // 2, applied.block % 2 == 0  # who joins in its midst has lost none
        self._lengths.append(length)
        self._periods_s.append(period_s)
        if len(self._periods_s) != applied.length:
            return None
        sort, places = counted(self._lengths[:-1])
        if not places:
            return None
        took_s = statistics.fmean(self._periods_s[at] for at in places)
        if applied.block % 2 == 0:
            self._first = applied, took_s, sort
            return None
        if self._first is None or self._first[0].block != applied.block - 1 or self._first[2] != sort:
            return None
        by_arm = {self._first[0].arm: self._first[1], applied.arm: took_s}
        if by_arm.keys() != {Arm.PLAN, Arm.CONTROL}:
            return None
        self.lost, self.open = 0, False
        return by_arm[Arm.PLAN], by_arm[Arm.CONTROL]


class SlowGuard:
    """Watches one plan."""

    def __init__(self) -> None:
        self._pairs = _Pairs()
        self._excesses: deque[float] = deque(maxlen=_REMEMBERED)
        self._seen: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)

    @property
    def blind(self) -> str:
        """Why the plan can't be watched; empty while it can."""
        if self._pairs.lost < _MOST_LOST:
            return ""
        return (
            f"of the last {self._pairs.lost} pairs of blocks none could be measured: iterations were broken off or "
            "followed by evaluations, or markers of theirs were missed, so nobody would see what the plan costs"
        )

    def pause(self) -> None:
        """Something else has stopped the plan: the pair that runs is given up for that, and isn't lost."""
        self._pairs.open = False

    def period(self, applied: Applied, length: Length, period_s: float, allowed: float) -> str | None:
        """Takes the period of one more iteration, in seconds; why the plan is refused, once that is sure.

        `allowed` is how many times as long as at default clocks an iteration may last.
        """
        pair = self._pairs.period(applied, length, period_s)
        if pair is None or min(pair) <= 0:
            return None
        self._seen.append(pair)
        self._excesses.append(self._cut(log(pair[0] / pair[1] / allowed) - log1p(MARGIN)))
        if _evidence(self._excesses) < _PAIRS_TO_FALSE_ALARM:
            return None
        plan_s, control_s = (statistics.median(times) for times in zip(*self._seen, strict=True))
        slower = statistics.median(plan / control for plan, control in self._seen) - 1
        return (
            f"iterations take {plan_s:.4g} s with the plan and {control_s:.4g} s at default clocks, {slower:.2%} "
            f"longer in {len(self._seen)} pairs of blocks; {allowed - 1:.2%} are allowed, and {MARGIN:.1%} as a margin"
        )

    def _cut(self, excess: float) -> float:
        most = _MOST
        if len(self._excesses) >= _KNOWN:
            most = min(most, max(_LEAST_USUAL, _USUAL * statistics.median(map(abs, self._excesses))))
        return max(-most, min(most, excess))


def _evidence(excesses: deque[float]) -> float:
    """Of all evidence that began at one of these pairs, the sum."""
    pairs, total, squares, evidence = 0, 0.0, 0.0, 0.0
    for excess in reversed(excesses):
        pairs, total, squares = pairs + 1, total + excess, squares + excess * excess
        if total > 0:
            evidence += exp(min(_log_bayes_factor(pairs, total, squares), log(_PAIRS_TO_FALSE_ALARM)))
    return evidence


def _log_bayes_factor(pairs: int, total: float, squares: float) -> float:
    explained = total * total / pairs
    ratio = explained / max(squares - explained, pairs * _LEAST_DEVIATION**2)
    gain = 1 + pairs * _PRIOR
    return (pairs * (log1p(ratio) - log1p(ratio / gain)) - log(gain)) / 2
