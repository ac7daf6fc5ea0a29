"""Fills in the clocks that were not measured: a physical curve through a handful of points, and its residuals.

Time follows a + b/f + c f^8 (work bound by the clock, work that isn't, and the plateau near the top where a power cap
holds), power a + b f + c f^3 (static and dynamic). What the curve leaves at the measured clocks is interpolated as
far as it exceeds the measurements' standard errors. Nothing is extrapolated: the curve ends at the lowest measured
clock, and no clock is faster than the default one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from joulepath_planner.arguments import checked
from joulepath_planner.arrays import Floats
from joulepath_planner.errors import ProfileError
from joulepath_planner.inputs.instruction import StageKind
from joulepath_planner.inputs.profile import Point, Profile

__all__ = ["Fit", "Residual", "fit"]

_TIME_POWERS: Final = (0, -1, 8)
_POWER_POWERS: Final = (0, 3, 1)
_POINTS_PER_TERM: Final = 2
_LEAST_SLOPE: Final = 0.05
"""A clock lower by a share costs at least this much of that share in time, so that noise on the plateau cannot make a
lower clock look free: critical instructions stay at default clocks."""


@dataclass(frozen=True, slots=True)
class Residual:
    """What a measured point is above the curve alone, as fractions of the curve's time and power."""

    clock_mhz: int
    time: float
    power: float


@dataclass(frozen=True, slots=True)
class Fit:
    """The completed profile, and how well the curve fits each (stage, kind)."""

    profile: Profile
    residuals: Mapping[StageKind, tuple[Residual, ...]]


@checked
def fit(profile: Profile, supported_clocks_mhz: Collection[int]) -> Fit:
    """Complete a measured profile to the supported clocks between its lowest and its default (highest) clock.

    The default point stays as measured, and a fixed series as it is.

    Raises:
        ProfileError: A default clock is not supported.
    """
    completed: dict[StageKind, tuple[Point, ...]] = {}
    residuals: dict[StageKind, tuple[Residual, ...]] = {}
    for (stage, kind), points in profile.points.items():
        if profile.is_fixed(stage, kind):
            completed[stage, kind] = points
            continue
        top, lowest = points[0].clock_mhz, points[-1].clock_mhz
        if top not in supported_clocks_mhz:
            raise ProfileError(
                f"stage {stage} {kind}: the highest measured clock, {top} MHz, is not a supported clock; "
                "measure at the clock that the GPU runs by default."
            )
        clocks = sorted({clock for clock in supported_clocks_mhz if lowest <= clock <= top}, reverse=True)
        completed[stage, kind], residuals[stage, kind] = _complete(points, clocks)
    return Fit(Profile(completed, profile.blocking_power_w, profile.fixed), residuals)


def _complete(points: tuple[Point, ...], clocks: list[int]) -> tuple[tuple[Point, ...], tuple[Residual, ...]]:
    top = points[0]
    at = np.array([point.clock_mhz for point in points], dtype=float) / top.clock_mhz
    wanted = np.array(clocks, dtype=float) / top.clock_mhz
    times = np.array([point.time_s for point in points])
    powers = np.array([point.energy_j for point in points]) / times
    time_se = np.array([point.time_se_s for point in points]) / times
    power_se = np.hypot(time_se, [point.energy_se_j / point.energy_j for point in points])
    time_curve, time_left, time_error = _curve(at, times, time_se, wanted, _TIME_POWERS)
    power_curve, power_left, power_error = _curve(at, powers, power_se, wanted, _POWER_POWERS)
    time_curve = np.maximum.accumulate(np.maximum(time_curve, top.time_s * (1 + _LEAST_SLOPE * (1 / wanted - 1))))
    energy_curve = np.clip(power_curve, powers.min(), powers.max()) * time_curve
    filled = tuple(
        Point(clock, float(time), float(energy), float(time * time_error), float(energy * power_error))
        for clock, time, energy in zip(clocks[1:], time_curve[1:], energy_curve[1:], strict=True)
    )
    residuals = tuple(
        Residual(point.clock_mhz, float(time), float(power))
        for point, time, power in zip(points, time_left, power_left, strict=True)
    )
    return (top, *filled), residuals


def _curve(
    at: Floats, values: Floats, errors: Floats, wanted: Floats, exponents: Sequence[int]
) -> tuple[Floats, Floats, float]:
    """(values at the wanted clocks, relative residuals at the measured ones, relative error of the curve)."""
    terms = np.array(exponents[: max(2, len(at) // _POINTS_PER_TERM)])
    # Relative least squares; an error of 0 says that none is known, not that the point is exact.
    weights = 1 / (values * (np.maximum(errors, errors.mean()) if errors.any() else 1.0))
    weights /= weights.max()
    basis = at[:, None] ** terms
    try:
        factors = np.linalg.lstsq(basis * weights[:, None], values * weights, rcond=None)[0]
    except np.linalg.LinAlgError:
        raise ProfileError(
            f"no curve goes through values from {values.min():g} to {values.max():g}: are all of them in seconds "
            "and joules?"
        ) from None
    left = values / (basis @ factors) - 1
    free = max(1, len(at) - len(terms))
    spread = float(np.sum(left**2)) / free
    noise = float(np.mean(errors**2))
    # The share of the residuals that noise does not explain belongs to the GPU: keep it.
    share = max(0.0, 1 - noise / spread) if spread > 0 else 0.0
    kept = 1 + share * np.interp(wanted, at[::-1], left[::-1])
    return (wanted[:, None] ** terms @ factors) * kept, left, float(np.sqrt(max(spread, noise)))
