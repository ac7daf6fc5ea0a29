"""Measured seconds and joules of each (stage, kind) by clock, and the power of a GPU that waits.

A `Profile` is checked once, here at the border; everything behind it trusts the numbers. The highest
clock of a stage is its *default clock*: what the GPU runs at when nothing of ours holds it.

What no clock changes the time of is *fixed*: the kind `X` always, and what else of a stage is marked so. Nothing fixed
ever asks for a clock: it runs at whatever clock its neighbours have.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from joulepath_planner.errors import ProfileError
from joulepath_planner.inputs.instruction import FIXED, KIND_NAMES, KINDS, StageKind

__all__ = ["Point", "Profile"]

_CSV_KINDS: Final = {**{name: kind for kind, name in KIND_NAMES.items()}, **{kind.lower(): kind for kind in KINDS}}
_CSV_COLUMNS: Final = ("stage", "instruction", "frequency", "time", "energy")
_CSV_NUMBERS: Final[dict[str, type[int] | type[float]]] = {
    "stage": int,
    "frequency": int,
    "time": float,
    "energy": float,
}

_MOST_MHZ: Final = 10_000
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
        if not self.points:
            raise ProfileError("the profile is empty: give at least one stage with F and B.")
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
        self._check_blocking_power()

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        *,
        blocking_power_w: float | Mapping[int, float],
        fixed: Collection[StageKind] = (),
        supported_clocks_mhz: Collection[int] | None = None,
    ) -> Profile:
        """Read Zeus's CSV (stage, instruction, frequency in MHz, time in s, energy in J).

        An instruction is a kind (`F`) or its name (`forward`, `backward`, `input`, `weight`, `recomputation`, `fixed`).

        Raises:
            ProfileError: It is no such CSV, or nothing can be planned on it.
            OSError: The file can't be read.
        """
        series: dict[StageKind, list[Point]] = {}
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            if not reader.fieldnames:
                raise ProfileError(f"{path} is empty; its header must be {','.join(_CSV_COLUMNS)}.")
            reader.fieldnames = [name.strip() for name in reader.fieldnames]
            if missing := [name for name in _CSV_COLUMNS if name not in (reader.fieldnames or ())]:
                raise ProfileError(
                    f"{path}: column {missing[0]!r} is missing; the header must be {','.join(_CSV_COLUMNS)}, "
                    "separated by commas."
                )
            for row in reader:
                kind = _CSV_KINDS.get(str(row["instruction"]).strip().lower())
                if kind is None:
                    raise ProfileError(
                        f"{path}, line {reader.line_num}: instruction {row['instruction']!r} is unknown; "
                        f"use one of {', '.join(_CSV_KINDS)}."
                    )
                values = {name: _number(row[name], name, f"{path}, line {reader.line_num}") for name in _CSV_NUMBERS}
                point = Point(int(values["frequency"]), values["time"], values["energy"])
                series.setdefault((int(values["stage"]), kind), []).append(point)
        return cls(
            {key: tuple(points) for key, points in series.items()}, blocking_power_w, fixed, supported_clocks_mhz
        )

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
        for point in points:
            if point.clock_mhz == clock_mhz:
                return point.time_s, point.energy_j
        clocks = [point.clock_mhz for point in points]
        return (
            float(np.interp(clock_mhz, clocks, [point.time_s for point in points])),
            float(np.interp(clock_mhz, clocks, [point.energy_j for point in points])),
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


def _check_series(stage: int, kind: str, points: Collection[Point], fixed: bool) -> None:
    if stage < 0:
        raise ProfileError(f"stage {stage} {kind}: a stage is counted from 0.")
    if kind not in KINDS:
        raise ProfileError(f"stage {stage} has kind {kind!r}; a kind is one of {', '.join(KINDS)}.")
    seen: set[int] = set()
    for point in points:
        where = f"stage {stage} {kind} at {point.clock_mhz} MHz"
        if point.clock_mhz <= 0:
            raise ProfileError(f"{where}: the clock must be above 0.")
        if point.clock_mhz > _MOST_MHZ:
            raise ProfileError(f"{where}: no GPU has such a clock; give clocks in MHz.")
        if point.clock_mhz in seen:
            raise ProfileError(f"{where} is given twice; keep one point per clock.")
        seen.add(point.clock_mhz)
        for name, value in (("time_s", point.time_s), ("energy_j", point.energy_j)):
            if not (math.isfinite(value) and value > 0):
                raise ProfileError(
                    f"{where}: {name} is {value}; it must be finite and above 0. Correct it, or measure again."
                )
        for name, value in (("time_se_s", point.time_se_s), ("energy_se_j", point.energy_se_j)):
            if not (math.isfinite(value) and value >= 0):
                raise ProfileError(f"{where}: {name} is {value}; it must be finite and 0 or more.")
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


def _number(text: str | None, column: str, where: str) -> float:
    try:
        value = float(text or "")
        if _CSV_NUMBERS[column] is int and not value.is_integer():
            raise ValueError
        return value
    except ValueError:
        unit = " of MHz" if column == "frequency" else ""
        wanted = f"a whole number{unit}" if _CSV_NUMBERS[column] is int else "a number"
        given = "missing" if text is None else repr(text)
        raise ProfileError(f"{where}: {column} is {given}; it must be {wanted}.") from None
