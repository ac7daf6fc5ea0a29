"""The clock of one GPU over time, as the referee sees it: what is asked for comes into force a lag later, in turn."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

__all__ = ["GpuClock"]


class GpuClock:
    """`clock` is in force, `target` was asked for last, `pending` is when what was asked for comes into force.

    sets: how many there were; dwell: the shortest time between two of them. stands_until: the end of the pause after
    what came into force last.
    """

    __slots__ = ("_power_w", "clock", "dwell", "last_set", "pause_s", "pending", "sets", "stands_until", "target")

    def __init__(self, clock: int, power_w: Mapping[int, float], pause_s: float) -> None:
        self.clock = self.target = clock
        self.pending: deque[tuple[float, int]] = deque()
        self.sets, self.last_set, self.dwell = 0, -math.inf, math.inf
        self.pause_s, self.stands_until = pause_s, -math.inf
        self._power_w = power_w

    def set(self, at: float, target: int, lag_s: float) -> None:
        """Ask for a clock other than the one asked for last."""
        begins = max(at, self.pending[-1][0]) if self.pending else at
        self.pending.append((begins + lag_s, target))
        self.target = target
        self.sets += 1
        if begins - self.last_set < self.dwell:
            self.dwell = begins - self.last_set
        self.last_set = begins

    def settle(self, now: float) -> None:
        """Forget what lies before now."""
        while self.pending and self.pending[0][0] <= now:
            at, self.clock = self.pending.popleft()
            self.stands_until = at + self.pause_s

    def segments(self) -> list[tuple[float, int]]:
        """(until, clock) since it was settled; the last lasts forever."""
        clocks = [self.clock, *(clock for _, clock in self.pending)]
        return list(zip([*(at for at, _ in self.pending), math.inf], clocks, strict=True))

    def wait_j(self, begin: float, end: float) -> float:
        self.settle(begin)
        if not self.pending:
            return self._power_w[self.clock] * (end - begin)
        joules, now = 0.0, begin
        for until, clock in self.segments():
            until = min(until, end)
            joules += self._power_w[clock] * (until - now)
            now = until
            if now >= end:
                break
        return joules
