"""Completes a profile to the clocks that were not measured, and says how sure that is.

What was measured stays as it was measured: a filled-in clock never costs what a measured one gives. What lies between
is what is most likely by all points of a kind (`curves`): time = max(a + b/f, plateau), power by clock. Beside it
stands what the measured clocks themselves most likely are. Where the two differ, a measurement was lucky, or disturbed:
a plan that counts on it may be late, and `certainty` says by how much.

Nothing is extrapolated: a series ends at its lowest measured clock, and no clock that was filled in is faster, or
draws less, than all that were measured.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from joulepath_planner.arguments import checked
from joulepath_planner.arrays import Floats
from joulepath_planner.errors import ProfileError
from joulepath_planner.inputs.curves import POWER, TIME, Likely, Series, likely
from joulepath_planner.inputs.instruction import KINDS, StageKind, is_pair
from joulepath_planner.inputs.profile import Point, Profile

__all__ = ["Fit", "Residual", "fit"]

_OUTLIER: Final = 0.5
_PAIRS: Final = "pairs"


@dataclass(frozen=True, slots=True)
class Residual:
    """What a measured point is above the curve alone, as fractions of the curve's time and power, and how likely it is
    that something disturbed its measurement."""

    clock_mhz: int
    time: float
    power: float
    wrong: float

    @property
    def outlier(self) -> bool:
        return self.wrong > _OUTLIER


@dataclass(frozen=True, slots=True)
class Fit:
    """profile: the completed one, measured points as they were measured. likely: what all its points most likely are,
    with their standard errors, the measured ones too.

    residuals: of each (stage, kind), how well a curve fits. draws: for each, ways in which the truth may be, as
    (seconds, joules) with a row for each way and a column for each point of `likely`. Fixed series have neither.
    """

    profile: Profile
    likely: Profile
    residuals: Mapping[StageKind, tuple[Residual, ...]]
    draws: Mapping[StageKind, tuple[Floats, Floats]] = field(repr=False, compare=False)


@checked
def fit(profile: Profile, supported_clocks_mhz: Collection[int]) -> Fit:
    """Complete a measured profile to the supported clocks between its lowest and its default (highest) clock.

    Measured points stay as they are, and a fixed series too; a measured clock that is not supported is left out. The
    standard error of a measured point is at least how far it is from what is likely.

    Raises:
        ProfileError: A default clock is not supported, or the values are beyond any curve.
    """
    completed = dict(profile.points)
    expected = dict(profile.points)
    residuals: dict[StageKind, tuple[Residual, ...]] = {}
    draws: dict[StageKind, tuple[Floats, Floats]] = {}
    for number, family in enumerate((*KINDS, _PAIRS)):
        keys = [key for key in profile.points if _family(key[1]) == family and not profile.is_fixed(*key)]
        if not keys:
            continue
        # Pairs share their shape as the stages of a kind do, and a stage may have several.
        series = {place if family == _PAIRS else key[0]: profile.points[key] for place, key in enumerate(keys)}
        top = max(points[0].clock_mhz for points in series.values())
        named = dict(zip(series, keys, strict=True))
        clocks = {at: _clocks(*named[at], points, supported_clocks_mhz) for at, points in series.items()}
        wanted = {at: np.array(ones) / top for at, ones in clocks.items()}
        seconds, watts = ({at: of(points, top) for at, points in series.items()} for of in (_times, _powers))
        powers = likely(watts, wanted, POWER, 2 * number + 1)
        times = likely(seconds, wanted, TIME, 2 * number, {at: one.caps for at, one in powers.items()})
        for at, points in series.items():
            key, time, power = named[at], times[at], powers[at]
            kept = [index for index, clock in enumerate(clocks[at]) if clock in supported_clocks_mhz]
            left = [clocks[at][index] for index in kept]
            completed[key], expected[key] = _points(points, left, kept, time, power)
            residuals[key] = _residuals(points, time, power)
            draws[key] = time.draws[:, kept], (time.draws * power.draws)[:, kept]
    return Fit(
        Profile(completed, profile.blocking_power_w, profile.fixed),
        Profile(expected, profile.blocking_power_w, profile.fixed),
        residuals,
        draws,
    )


def _family(kind: str) -> str:
    return _PAIRS if is_pair(kind) else kind


def _clocks(stage: int, kind: str, points: tuple[Point, ...], supported: Collection[int]) -> list[int]:
    """The supported clocks of a series and the measured ones, from the highest down."""
    top, lowest = points[0].clock_mhz, points[-1].clock_mhz
    if top not in supported:
        raise ProfileError(
            f"stage {stage} {kind}: the highest measured clock, {top} MHz, is not a supported clock; "
            "measure at the clock that the GPU runs by default."
        )
    between = {clock for clock in supported if lowest <= clock <= top}
    return sorted(between | {point.clock_mhz for point in points}, reverse=True)


def _times(points: tuple[Point, ...], top: int) -> Series:
    seconds = np.array([point.time_s for point in points])
    errors = np.array([point.time_se_s for point in points]) / seconds
    return Series(np.array([point.clock_mhz / top for point in points]), seconds, errors, bool(errors.any()))


def _powers(points: tuple[Point, ...], top: int) -> Series:
    times = _times(points, top)
    joules = np.array([point.energy_j for point in points])
    errors = np.hypot(times.errors, np.array([point.energy_se_j for point in points]) / joules)
    return Series(times.at, joules / times.values, errors)


def _points(
    points: tuple[Point, ...], clocks: list[int], kept: list[int], time: Likely, power: Likely
) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
    """(the completed series, what it most likely is)."""
    measured = {point.clock_mhz: point for point in points}
    fastest = min(point.time_s for point in points)
    least_w = min(point.energy_j / point.time_s for point in points)
    floor_s, floor_w = (float(one.values[one.at].min()) for one in (time, power))
    completed, expected = [], []
    for clock, index in zip(clocks, kept, strict=True):
        seconds, watts = max(float(time.values[index]), floor_s), max(float(power.values[index]), floor_w)
        time_error, error = float(time.errors[index]), float(np.hypot(time.errors[index], power.errors[index]))
        joules = seconds * watts
        expected.append(Point(clock, seconds, joules, seconds * time_error, joules * error))
        if clock in measured:
            one = measured[clock]
            time_s, energy_j = one.time_s, one.energy_j
            time_se_s = max(one.time_se_s, float(np.hypot(seconds * time_error, time_s - seconds)))
            energy_se_j = max(one.energy_se_j, float(np.hypot(joules * error, energy_j - joules)))
        else:
            time_s, time_se_s = max(seconds, fastest), seconds * time_error
            energy_j, energy_se_j = time_s * max(watts, least_w), joules * error
        completed.append(Point(clock, time_s, energy_j, time_se_s, energy_se_j))
    return tuple(completed), tuple(expected)


def _residuals(points: tuple[Point, ...], time: Likely, power: Likely) -> tuple[Residual, ...]:
    return tuple(
        Residual(
            point.clock_mhz,
            point.time_s / float(seconds) - 1,
            point.energy_j / point.time_s / float(watts) - 1,
            max(float(time_wrong), float(power_wrong)),
        )
        for point, seconds, watts, time_wrong, power_wrong in zip(
            points, time.curve, power.curve, time.wrong, power.wrong, strict=True
        )
    )
