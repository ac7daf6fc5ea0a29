"""Measured seconds and joules of each (stage, kind) by clock, and the power of a GPU that waits.

A `Profile` is checked once, here at the border; everything behind it trusts the numbers. The highest
clock of a stage is its *default clock*: what the GPU runs at when nothing of ours holds it.

What no clock changes the time of is *fixed*: the kind `X` always, and what else of a stage is marked so. Nothing fixed
ever asks for a clock: it runs at whatever clock its neighbours have.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import InitVar, dataclass
from os import PathLike
from typing import Final

import numpy as np

from joulepath_planner.arguments import check_fields, fits, quoted
from joulepath_planner.errors import ArgumentError, ProfileError
from joulepath_planner.inputs.instruction import FIXED, KINDS, MOST_STAGES, StageKind, is_pair
from joulepath_planner.inputs.zeus import read_rows

__all__ = ["MOST_W", "Point", "Profile"]

_LEAST_MHZ: Final = 50
_MOST_MHZ: Final = 10_000
_LEAST_W: Final = 2.0
MOST_W: Final = 5000.0
_LONGEST_S: Final = 100.0
_MOST: Final = 1e12
"""Seconds, joules, watts: beyond this, sums are none any more."""
_SAME_TIME: Final = 0.05
"""What the times of a fixed series may differ, as a fraction: noise."""


@dataclass(frozen=True, slots=True)
class Point:
    """One instruction at one clock: mean seconds and joules, each with its standard error."""

    clock_mhz: int
    time_s: float
    energy_j: float
    time_se_s: float = 0.0
    energy_se_j: float = 0.0


@dataclass(frozen=True, slots=True)
class Profile:
    """Points of each (stage, kind), kept from the highest clock down, and the blocking power.

    `blocking_power_w` is the watts of a waiting GPU: one number, or by clock (MHz), read linearly
    between clocks.

    fixed: the (stage, kind) whose time no clock changes; `X` always is. One point is enough for them. They are kept
        with a point at every clock of their stage, all of the same time, joules linear between those given.
    supported_clocks_mhz: what the GPU can be set to; where given, a point at another clock is refused.

    Raises:
        ProfileError: Nothing can be planned on it.
    """

    points: Mapping[StageKind, tuple[Point, ...]]
    blocking_power_w: float | Mapping[int, float]
    fixed: Collection[StageKind] = frozenset()
    supported_clocks_mhz: InitVar[Collection[int] | None] = None

    def __post_init__(self, supported_clocks_mhz: Collection[int] | None) -> None:
        check_fields(self)
        if not fits(supported_clocks_mhz, Collection[int] | None):
            raise ArgumentError(f"supported_clocks_mhz is {quoted(supported_clocks_mhz)}; it must be a list of MHz.")
        if not self.points:
            raise ProfileError("the profile is empty: give at least one stage with F and B.")
        if (stages := len({stage for stage, _ in self.points})) > MOST_STAGES:
            raise ProfileError(f"the profile has {stages} stages; up to {MOST_STAGES} can be planned. Leave some out.")
        fixed = frozenset(self.fixed) | {key for key in self.points if key[1] == FIXED}
        if unknown := fixed - self.points.keys():
            stage, kind = min(unknown)
            raise ProfileError(f"stage {stage} {kind} is marked fixed, but has no points; measure it at one clock.")
        ordered = {}
        for (stage, kind), points in sorted(self.points.items()):
            _check_series(stage, kind, points, (stage, kind) in fixed)
            _check_supported(stage, kind, points, supported_clocks_mhz)
            ordered[stage, kind] = tuple(sorted(points, key=lambda point: -point.clock_mhz))
        object.__setattr__(self, "points", {key: _at_every_clock(key, ordered, fixed) for key in ordered})
        object.__setattr__(self, "fixed", fixed)
        for stage in self.stages:
            self._check_stage(stage)
        _check_blocking_power(self.blocking_power_w)
        if isinstance(self.blocking_power_w, Mapping):
            object.__setattr__(self, "blocking_power_w", dict(sorted(self.blocking_power_w.items())))

    @classmethod
    def from_csv(
        cls,
        path: str | PathLike[str],
        *,
        blocking_power_w: float | Mapping[int, float],
        fixed: Collection[StageKind] = (),
        supported_clocks_mhz: Collection[int] | None = None,
        tell: Callable[[str], object] = warnings.warn,
    ) -> Profile:
        """Read Zeus's CSV (stage, instruction, frequency in MHz, time in s, energy in J).

        An instruction is a kind (`F`) or its name (`forward`, `backward`, `input`, `weight`, `recomputation`, `fixed`).
        Rows of `load` are left out; where further columns tell several rows of a clock apart, the one of least
        effective energy is kept. tell: called with a sentence on each.

        Raises:
            ProfileError: It is no such CSV, nothing can be planned on it, or its units are no seconds and joules.
            ArgumentError: An argument is of another type.
            OSError: The file can't be read.
        """
        _check_blocking_power(blocking_power_w)
        series: dict[StageKind, list[Point]] = {}
        for row in read_rows(path, lambda clock: _watts_at(blocking_power_w, clock), tell):
            point = Point(row.clock_mhz, row.time_s, row.energy_j)
            series.setdefault((row.stage, row.kind), []).append(point)
        made = cls(
            {key: tuple(points) for key, points in series.items()}, blocking_power_w, fixed, supported_clocks_mhz
        )
        made.check_units()
        return made

    @property
    def stages(self) -> tuple[int, ...]:
        return tuple(sorted({stage for stage, _ in self.points}))

    @property
    def clocks_mhz(self) -> frozenset[int]:
        """Of all points."""
        return frozenset(point.clock_mhz for points in self.points.values() for point in points)

    def default_clock_mhz(self, stage: int) -> int:
        """The highest clock of a stage, the same for all its kinds.

        Raises:
            ProfileError: Nothing was measured of it.
        """
        for (of, _), points in self.points.items():
            if of == stage:
                return points[0].clock_mhz
        raise self._unknown(f"stage {quoted(stage)}")

    def default(self, stage: int, kind: str) -> Point:
        """The point at the default clock.

        Raises:
            ProfileError: Nothing was measured of this stage and kind.
        """
        return self._series(stage, kind)[0]

    def _series(self, stage: int, kind: str) -> tuple[Point, ...]:
        try:
            return self.points[stage, kind]
        except (KeyError, TypeError):
            raise self._unknown(f"stage {quoted(stage)} {quoted(kind)}") from None

    def _unknown(self, what: str) -> ProfileError:
        kinds = sorted({kind for _, kind in self.points})
        return ProfileError(
            f"nothing was measured of {what}; the profile has stages {min(self.stages)} to {max(self.stages)} and the "
            f"kinds {', '.join(kinds)}."
        )

    def wait_power_w(self, clock_mhz: float) -> float:
        """Watts of a GPU that waits at this clock."""
        return _watts_at(self.blocking_power_w, clock_mhz)

    @property
    def least_wait_power_w(self) -> float:
        """Lowest blocking power at any clock of the profile: what a lower bound may count on."""
        return min(self.wait_power_w(point.clock_mhz) for points in self.points.values() for point in points)

    def at(self, stage: int, kind: str, clock_mhz: int) -> tuple[float, float]:
        """(seconds, joules) at a clock; linear between measured clocks, the nearest one outside them.

        Raises:
            ProfileError: Nothing was measured of this stage and kind.
            ArgumentError: The clock is no number.
        """
        points = self._series(stage, kind)[::-1]
        for point in points:
            if point.clock_mhz == clock_mhz:
                return point.time_s, point.energy_j
        if not fits(clock_mhz, float):
            raise ArgumentError(f"clock_mhz is {quoted(clock_mhz)}; it must be a number of MHz.")
        clocks = [point.clock_mhz for point in points]
        return (
            float(np.interp(clock_mhz, clocks, [point.time_s for point in points])),
            float(np.interp(clock_mhz, clocks, [point.energy_j for point in points])),
        )

    def check_units(self) -> None:
        """Refuse what is no seconds, joules and watts of one GPU, by what GPUs draw.

        Raises:
            ProfileError: Some instruction, or a wait, draws what no GPU does, or an instruction lasts for minutes.
        """
        unit = "give seconds, joules and watts of one GPU"
        most_w = 0.0
        for (stage, kind), points in self.points.items():
            for point in points:
                where, watts = f"stage {stage} {kind} at {point.clock_mhz} MHz", point.energy_j / point.time_s
                if not (0 if (stage, kind) in self.fixed else _LEAST_W) <= watts <= MOST_W:
                    raise ProfileError(
                        f"{where} draws {watts:.4g} W, which no GPU does; {unit} (are columns swapped?)."
                    )
                if point.time_s > _LONGEST_S:
                    raise ProfileError(f"{where} lasts {point.time_s:g} s, which no instruction does; {unit}.")
                most_w = max(most_w, watts)
        for clock in sorted({point.clock_mhz for points in self.points.values() for point in points}, reverse=True):
            if (waiting_w := self.wait_power_w(clock)) > most_w:
                raise ProfileError(
                    f"the blocking power is {waiting_w:g} W at {clock} MHz, and no instruction draws over {most_w:.4g} "
                    f"W: a GPU that waits draws less than one that computes; {unit}."
                )

    def is_fixed(self, stage: int, kind: str) -> bool:
        """Whether no clock changes the time of this kind, so that it asks for none."""
        return (stage, kind) in self.fixed

    def capped(self, default_clock_mhz: int) -> Profile:
        """The profile of a GPU whose own cap is this clock: higher points are left out.

        Raises:
            ProfileError: It was not measured at this clock.
        """
        for stage, kind in self.points:
            if all(point.clock_mhz != default_clock_mhz for point in self.points[stage, kind]):
                raise ProfileError(
                    f"stage {stage} {kind} has no point at the default clock {default_clock_mhz} MHz; measure it there."
                )
        kept = {
            key: tuple(point for point in points if point.clock_mhz <= default_clock_mhz)
            for key, points in self.points.items()
        }
        return Profile(kept, self.blocking_power_w, self.fixed)

    def among(self, clocks_mhz: Collection[int]) -> Profile:
        """The profile with these clocks alone.

        Raises:
            ProfileError: Nothing is left to choose from.
        """
        kept = {key: tuple(one for one in points if one.clock_mhz in clocks_mhz) for key, points in self.points.items()}
        return Profile(kept, self.blocking_power_w, self.fixed)

    def _check_stage(self, stage: int) -> None:
        kinds = {kind for of, kind in self.points if of == stage}
        if not ({"B"} <= kinds or {"I", "W"} <= kinds):
            raise ProfileError(f"stage {stage} has no backward: give its B, or its I and W.")
        if "F" not in kinds:
            raise ProfileError(f"stage {stage} has no F: give the points of its forward.")
        tops = {kind: self.points[stage, kind][0].clock_mhz for kind in sorted(kinds)}
        if len(set(tops.values())) > 1:
            listed = ", ".join(f"{kind} {clock} MHz" for kind, clock in tops.items())
            raise ProfileError(
                f"stage {stage}: the kinds end at different clocks ({listed}); measure each at the default clock."
            )


def _check_blocking_power(given: float | Mapping[int, float]) -> None:
    if not fits(given, float | Mapping[int, float]):
        raise ArgumentError(
            f"blocking_power_w is {quoted(given)}; it must be a number of watts, or such numbers by clock in MHz."
        )
    if isinstance(given, Mapping) and not given:
        raise ProfileError("blocking_power_w by clock is empty: give watts for at least one clock.")
    for clock, watts in given.items() if isinstance(given, Mapping) else ((None, given),):
        where = "" if clock is None else f" at {quoted(clock)} MHz"
        if clock is not None and not 0 < clock <= _MOST_MHZ:
            raise ProfileError(f"blocking_power_w{where}: no GPU has such a clock; give clocks in MHz.")
        if not 0 <= watts <= _MOST:
            raise ProfileError(
                f"blocking_power_w{where} is {quoted(watts)}; it must be a finite number of watts, 0 or more."
            )


def _watts_at(given: float | Mapping[int, float], clock_mhz: float) -> float:
    """The blocking power at a clock, linear between those given."""
    if not isinstance(given, Mapping):
        return given
    clocks = sorted(given)
    return float(np.interp(clock_mhz, clocks, [given[clock] for clock in clocks]))


def _check_series(stage: int, kind: str, points: Collection[Point], fixed: bool) -> None:
    if not 0 <= stage < MOST_STAGES:
        raise ProfileError(
            f"stage {quoted(stage)} {kind}: stages are counted from 0, and up to {MOST_STAGES} can be planned."
        )
    if kind not in KINDS and not is_pair(kind):
        raise ProfileError(f"stage {stage} has kind {kind!r}; a kind is one of {', '.join(KINDS)}, or as F&7:B.")
    seen: set[int] = set()
    for point in points:
        where = f"stage {stage} {kind} at {quoted(point.clock_mhz)} MHz"
        if not fits(point.clock_mhz, int) or not _LEAST_MHZ <= point.clock_mhz <= _MOST_MHZ:
            raise ProfileError(f"{where}: no GPU has such a clock; give clocks as whole numbers of MHz.")
        if point.clock_mhz in seen:
            raise ProfileError(f"{where} is given twice; keep one point per clock.")
        seen.add(point.clock_mhz)
        for name, value in (("time_s", point.time_s), ("energy_j", point.energy_j)):
            if not (fits(value, float) and 0 < value <= _MOST):
                raise ProfileError(
                    f"{where}: {name} is {quoted(value)}; it must be finite and above 0, all in "
                    "seconds and joules. Correct it, or measure again."
                )
        for name, value in (("time_se_s", point.time_se_s), ("energy_se_j", point.energy_se_j)):
            if not (fits(value, float) and 0 <= value <= _MOST):
                raise ProfileError(f"{where}: {name} is {quoted(value)}; it must be finite and 0 or more.")
    if not seen:
        raise ProfileError(
            f"stage {stage} {kind} has no point; measure at least two clocks, the default one among them."
        )
    if len(seen) < 2 and not fixed:
        raise ProfileError(
            f"stage {stage} {kind} has only one point, at {min(seen)} MHz; measure at least two clocks, the default "
            "one among them, or mark it as fixed if no clock changes its time."
        )
    times = {point.time_s: point for point in points}
    if fixed and max(times) > (1 + _SAME_TIME) * min(times):
        shortest, longest = times[min(times)], times[max(times)]
        raise ProfileError(
            f"stage {stage} {kind} is marked fixed, but takes {shortest.time_s} s at {shortest.clock_mhz} MHz and "
            f"{longest.time_s} s at {longest.clock_mhz} MHz; leave it out of `fixed`."
        )


def _check_supported(stage: int, kind: str, points: Iterable[Point], supported: Collection[int] | None) -> None:
    for point in points:
        if supported and point.clock_mhz not in supported:
            nearest = min(supported, key=lambda clock: abs(clock - point.clock_mhz))
            raise ProfileError(
                f"stage {stage} {kind} at {point.clock_mhz} MHz: the GPU has no such clock; the nearest that it has is "
                f"{nearest} MHz. Measure there, or leave the point out."
            )


def _at_every_clock(
    key: StageKind, series: Mapping[StageKind, tuple[Point, ...]], fixed: frozenset[StageKind]
) -> tuple[Point, ...]:
    """The points of a key; a fixed one's at every clock of its stage, so that it has what its neighbours have."""
    points = series[key]
    if key not in fixed:
        return points
    own = {other: ones for other, ones in series.items() if other[0] == key[0]}
    clocks = {one.clock_mhz for other, ones in own.items() if other not in fixed for one in ones}
    clocks = clocks or {one.clock_mhz for ones in own.values() for one in ones}
    at, joules = [one.clock_mhz for one in points[::-1]], [one.energy_j for one in points[::-1]]
    time_s = sum(one.time_s for one in points) / len(points)
    return tuple(
        Point(clock, time_s, float(np.interp(clock, at, joules)), points[0].time_se_s, points[0].energy_se_j)
        for clock in sorted(clocks, reverse=True)
    )
