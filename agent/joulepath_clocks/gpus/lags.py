"""How long a GPU's switches of clock took, as measured by its setter.

A switch is over at the first look that is within a step of the GPU's grid of where it leads to, on the near side or
beyond: a GPU that a cap holds never gets to the clock itself, but wavers around where it settles.

Lags depend mostly on the clock that is switched to, so they are kept by target and direction. A sweep raises to default
clocks alone. To a clock that was only lowered to, a raise goes by that lag, lengthened as raises are longer than
lowerings, by their medians, and no shorter than that to default clocks; to one that was raised to a few times by the
longer one of the two, as a few may all have been quick by chance; to one that is unknown by the longer one of all
raises and all lowerings.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from joulepath_clocks.gpus.wish import DEFAULT

__all__ = ["UNKNOWN_LAG_S", "LagSummary", "Lags", "Switch", "TargetLag", "UpLags", "Way"]

UNKNOWN_LAG_S: Final = 0.1
"""Taken while no switch has been measured: a raise that is too early costs energy, one that is too late costs time."""
_KEPT: Final = 64
"""Of a target and direction, the newest."""
_MOST_TARGETS: Final = 32
"""Of a direction, those switched to last: half of what a report holds."""
_FEWEST_RAISES: Final = 3
"""Measured to a target, before a raise goes by them: one that is too late costs time."""
_SURE_RAISES: Final = 20
"""From so many on, of which one in twenty is a 95th percentile, lowerings to the same target say nothing more."""
_SHORTEST_SETTLING_S: Final = 0.02
_LONGEST_SETTLING_S: Final = 0.3
_MOST_IN_VAIN: Final = 20
"""Switches in a direction, one after the other in a lease, after which it isn't measured any more: a GPU whose cap
isn't known yet never gets to its highest clock."""

Way = Literal["up", "down"]
_WAYS: Final[tuple[Way, Way]] = ("up", "down")


@dataclass(frozen=True, slots=True)
class Switch:
    """From one clock to another, where the GPU gets to both. `to_mhz` is where it settles."""

    to_mhz: int
    way: Way
    step_mhz: int

    @classmethod
    def between(cls, from_mhz: int, to_mhz: int, step_mhz: int, spread_mhz: int) -> Switch | None:
        """The switch; None where the two are so near each other that a clock that wavers may look like it.

        step_mhz: of the GPU's grid. spread_mhz: by how much a clock wavers where a cap holds it.
        """
        if abs(to_mhz - from_mhz) <= step_mhz + max(step_mhz, spread_mhz):
            return None
        return cls(to_mhz, "up" if to_mhz > from_mhz else "down", step_mhz)

    def is_over(self, clock_mhz: int) -> bool:
        """Whether a GPU that is seen at this clock has switched."""
        if self.way == "up":
            return clock_mhz >= self.to_mhz - self.step_mhz
        return clock_mhz <= self.to_mhz + self.step_mhz


@dataclass(frozen=True, slots=True)
class UpLags:
    """95th percentiles of the lag to a higher clock, in seconds: to some clocks, and to any other."""

    others_s: float = UNKNOWN_LAG_S
    targets_s: Mapping[int, float] = field(default_factory=dict)
    """By the clock that is ordered; 0 is default clocks."""

    def to(self, clock_mhz: int) -> float:
        """The one that a raise to this clock goes by."""
        return self.targets_s.get(clock_mhz, self.others_s)


@dataclass(frozen=True, slots=True)
class TargetLag:
    """Seconds from an order to its clock in force, of orders of one clock in one direction; 0 is default clocks."""

    clock_mhz: int
    direction: Way
    median_s: float
    p95_s: float
    samples: int


@dataclass(frozen=True, slots=True)
class LagSummary:
    """Seconds from an order to its clock in force, as NodeReports tell it."""

    up_median_s: float
    up_p95_s: float
    down_median_s: float
    down_p95_s: float
    samples: int
    targets: tuple[TargetLag, ...]


class Lags:
    """The last lags of one GPU, in seconds. One thread adds, others may read."""

    def __init__(self) -> None:
        self._lags: dict[Way, dict[int, tuple[float, ...]]] = {"up": {}, "down": {}}
        """By the clock ordered, that of the last order last. Replaced whole, as another thread may read them."""
        self._in_vain: Counter[Way] = Counter()
        self.up = UpLags()
        self.settling_s = _LONGEST_SETTLING_S
        """After so long a switch is in force, beyond doubt."""
        self.summary: LagSummary | None = None
        """The lags measured; None until there is one in each direction."""

    def are_worth_measuring(self, way: Way) -> bool:
        """Whether the last switches that way came in force."""
        return self._in_vain[way] < _MOST_IN_VAIN

    def add(self, way: Way, ordered_mhz: int, lag_s: float | None) -> None:
        """Takes one more; None where the switch wasn't seen to come in force."""
        self._in_vain[way] = self._in_vain[way] + 1 if lag_s is None else 0
        if lag_s is not None:
            self._take(way, ordered_mhz, (lag_s,))
            self._sum_up()

    def begin_with(self, way: Way, lags_s: Iterable[tuple[int, tuple[float, ...]]]) -> None:
        """Takes over lags that a doctor has measured, by the clock ordered, while it has none of its own."""
        if not self._lags[way]:
            for ordered_mhz, known in lags_s:
                self._take(way, ordered_mhz, known)
            self._sum_up()

    def begin_anew(self) -> None:
        """Another lease: what was in vain may not be so any more."""
        self._in_vain.clear()

    def _take(self, way: Way, ordered_mhz: int, lags_s: tuple[float, ...]) -> None:
        before = self._lags[way]
        kept = [(clock, known) for clock, known in before.items() if clock != ordered_mhz]
        newest = (ordered_mhz, (*before.get(ordered_mhz, ()), *lags_s)[-_KEPT:])
        self._lags[way] = dict([*kept, newest][-_MOST_TARGETS:])

    def _sum_up(self) -> None:
        """Once for each lag, since all that is asked between two looks."""
        up, down = ([one for known in self._lags[way].values() for one in known] for way in _WAYS)
        if known := (*up, *down):
            self.settling_s = min(_LONGEST_SETTLING_S, max(_SHORTEST_SETTLING_S, 3 * max(known)))
        rows = [
            TargetLag(clock, way, _quantile(lags, 0.5), _quantile(lags, 0.95), len(lags))
            for way in _WAYS
            for clock, lags in sorted(self._lags[way].items())
            if len(lags) >= (_FEWEST_RAISES if way == "up" else 1)
        ]
        if not up:
            return
        up_s, down_s = ([_quantile(side, share) if side else 0.0 for share in (0.5, 0.95)] for side in (up, down))
        longer = max(1.0, up_s[0] / down_s[0]) if down_s[0] else 1.0
        raises, lowered = ({row.clock_mhz: row for row in rows if row.direction == way} for way in _WAYS)
        others_s = max(up_s[1], down_s[1])
        least_s = raises[DEFAULT].p95_s if DEFAULT in raises else others_s
        to_s = {clock: longer * row.p95_s for clock, row in lowered.items()}
        to_s |= {clock: max(least_s, to_s[clock]) for clock in lowered.keys() - raises.keys()}
        for clock, row in raises.items():
            is_sure = row.samples >= _SURE_RAISES or clock == DEFAULT  # to which nothing is lowered
            to_s[clock] = row.p95_s if is_sure else max(row.p95_s, to_s.get(clock, 0.0))
        self.up = UpLags(others_s, to_s)
        if down:
            self.summary = LagSummary(up_s[0], up_s[1], down_s[0], down_s[1], len(known), tuple(rows))


def _quantile(values: Collection[float], share: float) -> float:
    """Linear between the two values next to it."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])
