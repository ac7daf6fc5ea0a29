"""Measured seconds and joules of each (stage, kind) by clock, and the power of a GPU that waits.

A `Profile` is checked once, here at the border; everything behind it trusts the numbers. The highest
clock of a stage is its *default clock*: what the GPU runs at when nothing of ours holds it.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

KINDS = ("F", "B", "I", "W")
_CSV_KINDS = {"forward": "F", "backward": "B", **{kind.lower(): kind for kind in KINDS}}
_CSV_COLUMNS = ("stage", "instruction", "frequency", "time", "energy")

Key = tuple[int, str]


class ProfileError(ValueError):
    """A profile that cannot be planned on; the message names stage, kind and clock."""


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
    between clocks. Raises `ProfileError` for anything that cannot be planned on.
    """

    points: Mapping[Key, tuple[Point, ...]]
    blocking_power_w: float | Mapping[int, float]

    def __post_init__(self) -> None:
        if not self.points:
            raise ProfileError("the profile is empty: give at least one stage with F and B.")
        ordered = {}
        for (stage, kind), points in sorted(self.points.items()):
            _check_series(stage, kind, points)
            ordered[stage, kind] = tuple(sorted(points, key=lambda point: -point.clock_mhz))
        object.__setattr__(self, "points", ordered)
        for stage in self.stages:
            self._check_stage(stage)
        self._check_blocking_power()

    @classmethod
    def from_csv(cls, path: str | Path, *, blocking_power_w: float | Mapping[int, float]) -> Profile:
        """Read Zeus's CSV (stage, instruction, frequency in MHz, time in s, energy in J)."""
        series: dict[Key, list[Point]] = {}
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in _CSV_COLUMNS if name not in (reader.fieldnames or ())]:
                raise ProfileError(
                    f"{path}: column {missing[0]!r} is missing; the header must be {','.join(_CSV_COLUMNS)}."
                )
            for row in reader:
                kind = _CSV_KINDS.get(str(row["instruction"]).strip().lower())
                if kind is None:
                    raise ProfileError(
                        f"{path}, line {reader.line_num}: instruction {row['instruction']!r} is unknown; "
                        f"use one of {', '.join(_CSV_KINDS)}."
                    )
                try:
                    stage, clock = int(row["stage"]), int(row["frequency"])
                    point = Point(clock, float(row["time"]), float(row["energy"]))
                except (TypeError, ValueError) as error:
                    raise ProfileError(f"{path}, line {reader.line_num}: {error}.") from None
                series.setdefault((stage, kind), []).append(point)
        return cls({key: tuple(points) for key, points in series.items()}, blocking_power_w)

    @property
    def stages(self) -> tuple[int, ...]:
        return tuple(sorted({stage for stage, _ in self.points}))

    def default_clock_mhz(self, stage: int) -> int:
        """The highest clock of a stage, the same for all its kinds."""
        return next(points[0].clock_mhz for (of, _), points in self.points.items() if of == stage)

    def default(self, stage: int, kind: str) -> Point:
        return self.points[stage, kind][0]

    def wait_power_w(self, clock_mhz: float) -> float:
        """Watts of a GPU that waits at this clock."""
        if isinstance(self.blocking_power_w, Mapping):
            clocks = sorted(self.blocking_power_w)
            return float(np.interp(clock_mhz, clocks, [self.blocking_power_w[clock] for clock in clocks]))
        return self.blocking_power_w

    @property
    def least_wait_power_w(self) -> float:
        """Lowest blocking power at any clock of the profile: what a lower bound may count on."""
        return min(self.wait_power_w(point.clock_mhz) for points in self.points.values() for point in points)

    def at(self, stage: int, kind: str, clock_mhz: int) -> tuple[float, float]:
        """(seconds, joules) at a clock; linear between measured clocks, the nearest one outside them."""
        points = self.points[stage, kind][::-1]
        clocks = [point.clock_mhz for point in points]
        return (
            float(np.interp(clock_mhz, clocks, [point.time_s for point in points])),
            float(np.interp(clock_mhz, clocks, [point.energy_j for point in points])),
        )

    def capped(self, default_clock_mhz: int) -> Profile:
        """The profile of a GPU whose own cap is this clock: higher points are left out."""
        for stage, kind in self.points:
            if all(point.clock_mhz != default_clock_mhz for point in self.points[stage, kind]):
                raise ProfileError(
                    f"stage {stage} {kind} has no point at the default clock {default_clock_mhz} MHz; measure it there."
                )
        kept = {
            key: tuple(point for point in points if point.clock_mhz <= default_clock_mhz)
            for key, points in self.points.items()
        }
        return Profile(kept, self.blocking_power_w)

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

    def _check_blocking_power(self) -> None:
        given = self.blocking_power_w
        if isinstance(given, Mapping):
            if not given:
                raise ProfileError("blocking_power_w by clock is empty: give watts for at least one clock.")
            object.__setattr__(self, "blocking_power_w", dict(sorted(given.items())))
        for clock, watts in given.items() if isinstance(given, Mapping) else ((None, given),):
            if not (math.isfinite(watts) and watts >= 0):
                where = "" if clock is None else f" at {clock} MHz"
                raise ProfileError(
                    f"blocking_power_w{where} is {watts}; it must be a finite number of watts, 0 or more."
                )


def _check_series(stage: int, kind: str, points: Iterable[Point]) -> None:
    if stage < 0:
        raise ProfileError(f"stage {stage} {kind}: a stage is counted from 0.")
    if kind not in KINDS:
        raise ProfileError(f"stage {stage} has kind {kind!r}; a kind is one of {', '.join(KINDS)}.")
    seen: set[int] = set()
    for point in points:
        where = f"stage {stage} {kind} at {point.clock_mhz} MHz"
        if point.clock_mhz <= 0:
            raise ProfileError(f"{where}: the clock must be above 0.")
        if point.clock_mhz in seen:
            raise ProfileError(f"{where} is given twice; keep one point per clock.")
        seen.add(point.clock_mhz)
        for name, value in (("time_s", point.time_s), ("energy_j", point.energy_j)):
            if not (math.isfinite(value) and value > 0):
                raise ProfileError(f"{where}: {name} is {value}; it must be finite and above 0. Measure it again.")
        for name, value in (("time_se_s", point.time_se_s), ("energy_se_j", point.energy_se_j)):
            if not (math.isfinite(value) and value >= 0):
                raise ProfileError(f"{where}: {name} is {value}; it must be finite and 0 or more.")
    if len(seen) < 2:
        at = f"only one point, at {next(iter(seen))} MHz" if seen else "no point"
        raise ProfileError(f"stage {stage} {kind} has {at}; measure at least two clocks, the default one among them.")
