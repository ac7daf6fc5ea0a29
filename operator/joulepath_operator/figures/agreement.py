"""Whether the profile of an earlier run still holds, by what this run measures at a few of its clocks.

Three answers. It agrees within its errors: used as it is. Or each kind of work on each stage has become slower, or
dearer, by one factor at all clocks that were measured again (other batches, a warmer room): its shape holds, and is
scaled. Or neither: the shape is another, and nothing of it is used. In the first two, what was measured twice is the
mean of both, by their errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import exp, hypot, log, sqrt
from typing import Final

from joulepath_crds import EnergyProfileSpec, ProfilePoint, Reuse, Topology
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.lags import joined

__all__ = ["Agreement", "agreement", "check_clocks", "merged", "unusable"]

_CHECKED_AT: Final = 0.35, 0.8
"""Where of the way from the default clock to the profile's lowest one: far enough apart that a shape shows. The default
clock itself is measured all the time."""
_UNSTATED: Final = 0.01, 0.02
"""Standard errors of time and energy, as fractions, where a profile states none."""
_LEAST_ERROR: Final = 0.002, 0.005
"""The same at least: what two runs of one job differ by."""
_SAME: Final = 0.0025, 0.005
"""By how much time and energy may be off beyond what errors explain, root mean square, and be the same."""
_SAME_SHAPE: Final = 0.005, 0.01
"""The same of what one factor a series leaves. Beyond the former, or where errors could hide as much, it isn't sure
that the shape is the same: then the planner says what else is to be measured."""
_SURELY: Final = 2.5
"""Standard deviations beyond which it isn't noise that two measurements differ by."""
_SAME_CLOCK: Final = 0.02
"""As a fraction: default clocks that settle farther apart are others."""
_SAME_W: Final = 0.5
_NOTHING: Final = 1e-12
"""Joules, in place of none: those have no logarithm."""
_LEAST_CLOCKS: Final = 3
"""With fewer measured now, nothing shows whether a shape is the same."""

_Key = tuple[int, str]
_Factors = tuple[float, float]
"""Of time and of energy."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What became of the profile, and why. factors: of each (stage, kind), now to then; none where it is refused. sure:
    whether the frontier is as well known as it was."""

    reuse: Reuse
    message: str
    factors: Mapping[_Key, _Factors] = field(default_factory=dict)
    sure: bool = False


def unusable(old: EnergyProfileSpec, gang: Gang, topology: Topology) -> str | None:
    """Why what was measured then can't be what is now, with both values; None where nothing speaks against it.

    What isn't known of one of them speaks for nothing: it is left to the check.
    """
    then, then_w, now_w = old.topology, old.power_cap_w, gang.power_cap_w
    if then.gpu_model != topology.gpu_model:
        return f"it was measured on {then.gpu_model}, and this job runs on {topology.gpu_model}"
    if then.default_clock_mhz != topology.default_clock_mhz:
        now_mhz = topology.default_clock_mhz
        return f"its GPUs ran at up to {then.default_clock_mhz} MHz, and this job's may run at up to {now_mhz} MHz"
    if then_w is not None and now_w is not None and abs(then_w - now_w) > _SAME_W:
        return f"its GPUs were capped at {then_w:g} W, and this job's are at {now_w:g} W"
    if old.driver and gang.driver and old.driver != gang.driver:
        return f"it was measured with driver {old.driver}, and this job's GPUs have driver {gang.driver}"
    return None


def check_clocks(old: EnergyProfileSpec, supported_mhz: Iterable[int], lowest_mhz: float) -> tuple[int, ...]:
    """The clocks at which to measure again, the higher one first; none where the profile has too few to be checked.

    Each has others of the profile on both sides: those say what it is to be.
    """
    series = [{point.clock_mhz for point in kind.points} for stage in old.stages for kind in stage.kinds]
    clocks = sorted(set[int].intersection(*series), reverse=True) if series else []
    top, bottom = max(clocks, default=0), max(lowest_mhz, min(clocks, default=0))
    between = [clock for clock in set(clocks[1:-1]).intersection(supported_mhz) if clock >= lowest_mhz]
    wanted = [top - share * (top - bottom) for share in _CHECKED_AT]
    found = {min(between, key=lambda clock: abs(clock - want)) for want in wanted if between}
    return tuple(sorted(found, reverse=True)) if len(found) == len(wanted) else ()


def agreement(old: EnergyProfileSpec, now: EnergyProfileSpec) -> Agreement:
    """What is found by all that this run has measured so far."""
    then_mhz, now_mhz = old.default_clock_mhz, now.default_clock_mhz
    if abs(then_mhz / now_mhz - 1) > _SAME_CLOCK:
        what = f"default clocks came to {then_mhz} MHz under load then, and come to {now_mhz} MHz now"
        return Agreement(Reuse.REFUSED, what)
    then, seen = _points(old), _points(now)
    pairs = {
        key: [(points[clock], then[key][clock]) for clock in points if clock in then[key]]
        for key, points in seen.items()
        if key in then
    }
    if then.keys() != seen.keys() or any(len(found) < _LEAST_CLOCKS for found in pairs.values()):
        return Agreement(Reuse.REFUSED, "it lacks work that this job does, or clocks at which that was measured now")
    off = [{key: [_off(*pair, of) for pair in found] for key, found in pairs.items()} for of in (0, 1)]
    means = [{key: _mean(found) for key, found in one.items()} for one in off]
    left = [
        [(value - mean[key], error) for key, found in one.items() for value, error in found]
        for one, mean in zip(off, means, strict=True)
    ]
    every = [list(chain.from_iterable(one.values())) for one in off]
    time, energy = (exp(_mean(one)) - 1 for one in every)
    clocks = sorted({clock for points in seen.values() for clock in points if clock}, reverse=True)
    at = f"at default clocks and at {', '.join(map(str, clocks))} MHz"
    off_by = f"{at} work has changed by {time:+.1%} in time and {energy:+.1%} in energy"
    uneven = [_beyond(one, fitted=len(pairs)) for one in left]
    if any(_beyond(one, _SURELY, len(pairs)) > same for one, same in zip(left, _SAME_SHAPE, strict=True)):
        apart = f"time by {uneven[0]:.1%} and energy by {uneven[1]:.1%} beside one factor for all clocks"
        return Agreement(Reuse.REFUSED, f"{off_by}, {apart}")
    hidden = [sqrt(_explained(one)) for one in left]
    sure = all(one <= same for one, same in zip((*uneven, *hidden), (*_SAME, *_SAME_SHAPE), strict=True))
    if all(_beyond(one, _SURELY) <= same for one, same in zip(every, _SAME, strict=True)):
        return Agreement(Reuse.REUSED, f"{off_by}, no more than errors explain", dict.fromkeys(pairs, (1.0, 1.0)), sure)
    factors = {key: (exp(means[0][key]), exp(means[1][key])) for key in pairs}
    return Agreement(Reuse.REFRESHED, f"{off_by}, by one factor at all clocks", factors, sure)


def merged(old: EnergyProfileSpec, now: EnergyProfileSpec, found: Agreement, lowest_mhz: float) -> EnergyProfileSpec:
    """The profile of now with the old one's points, scaled; none below the lowest clock.

    What else wasn't measured now, or less often, is taken from it, too: lags, and the noise of iterations.
    """
    then, top_mhz = _points(old), now.default_clock_mhz
    stages = tuple(
        stage.model_copy(
            update={
                "kinds": tuple(
                    kind.model_copy(
                        update={
                            "points": _joined(
                                kind.points,
                                _scaled(then[stage.stage, kind.kind], *found.factors[stage.stage, kind.kind]),
                                lowest_mhz,
                            )
                        }
                    )
                    for kind in stage.kinds
                )
            }
        )
        for stage in now.stages
    )
    measured = {one.clock_mhz for one in now.blocking_power}
    waits = [one for one in old.blocking_power if one.clock_mhz not in measured and one.clock_mhz < top_mhz]
    noise_s = old.iteration_time_noise_s * now.iteration_time_s / old.iteration_time_s
    return now.model_copy(
        update={
            "stages": stages,
            "blocking_power": tuple(sorted((*now.blocking_power, *waits), key=lambda one: -one.clock_mhz)),
            "iteration_time_noise_s": now.iteration_time_noise_s or noise_s,
            "lag": joined(now.lag, old.lag),
            "switching": now.switching or old.switching,
            "frontier_uncertainty": old.frontier_uncertainty if found.sure else None,
        }
    )


def _points(profile: EnergyProfileSpec) -> dict[_Key, dict[int, ProfilePoint]]:
    """By clock; 0 is where the GPUs settled, which needn't be the same clock each time."""
    top_mhz = profile.default_clock_mhz
    return {
        (stage.stage, kind.kind): {
            0 if point.clock_mhz == top_mhz else point.clock_mhz: point
            for point in kind.points
            if point.clock_mhz <= top_mhz
        }
        for stage in profile.stages
        for kind in stage.kinds
    }


def _off(now: ProfilePoint, then: ProfilePoint, of: int) -> tuple[float, float]:
    """How far off one is, as a logarithm, and the standard error of that. of: 0 for time, 1 for energy."""
    new, old = (max((one.time_s, one.energy_j)[of], _NOTHING) for one in (now, then))
    return log(new / old), max(hypot(_error(now, of), _error(then, of)), _LEAST_ERROR[of])


def _error(point: ProfilePoint, of: int) -> float:
    stated, value = (
        (point.time_standard_error_s, point.time_s),
        (point.energy_standard_error_j, point.energy_j),
    )[of]
    return stated / value if stated and value else _UNSTATED[of]


def _mean(found: Sequence[tuple[float, float]]) -> float:
    weights = [error**-2 for _, error in found]
    return sum(value * weight for (value, _), weight in zip(found, weights, strict=True)) / sum(weights)


def _beyond(found: Sequence[tuple[float, float]], surely: float = 0.0, fitted: int = 0) -> float:
    """The root mean square of what is off, less what errors explain. surely: by so many standard deviations of such
    sums; fitted: means that were taken off before."""
    free = len(found) - fitted
    explained = _explained(found) * (1 + surely * sqrt(2 / free))
    return sqrt(max(0.0, sum(value**2 for value, _ in found) / free - explained))


def _explained(found: Sequence[tuple[float, float]]) -> float:
    """The mean square of what errors explain."""
    return sum(error**2 for _, error in found) / len(found)


def _scaled(points: Mapping[int, ProfilePoint], time: float, energy: float) -> dict[int, ProfilePoint]:
    return {
        clock: point.model_copy(
            update={
                "time_s": point.time_s * time,
                "energy_j": point.energy_j * energy,
                "time_standard_error_s": point.time_s * time * _error(point, 0),
                "energy_standard_error_j": point.energy_j * energy * _error(point, 1),
            }
        )
        for clock, point in points.items()
    }


def _joined(
    now: Sequence[ProfilePoint], then: Mapping[int, ProfilePoint], lowest_mhz: float
) -> tuple[ProfilePoint, ...]:
    """Both, highest clock first, which is where the GPUs settle now."""
    top_mhz = max((point.clock_mhz for point in now), default=0)
    found = {point.clock_mhz: point for point in then.values() if lowest_mhz <= point.clock_mhz <= top_mhz}
    for point in now:
        other = found.get(point.clock_mhz)
        found[point.clock_mhz] = point if other is None else _both(point, other)
    return tuple(point for _, point in sorted(found.items(), reverse=True))


def _both(one: ProfilePoint, other: ProfilePoint) -> ProfilePoint:
    """The mean of two measurements by their errors."""
    weights = [[max(_error(point, of), _LEAST_ERROR[of]) ** -2 for point in (one, other)] for of in (0, 1)]
    (time, energy), (time_weight, energy_weight) = ([pair[0] / sum(pair) for pair in weights]), map(sum, weights)
    time_s = one.time_s * time + other.time_s * (1 - time)
    energy_j = one.energy_j * energy + other.energy_j * (1 - energy)
    return one.model_copy(
        update={
            "time_s": time_s,
            "energy_j": energy_j,
            "time_standard_error_s": time_s * time_weight**-0.5,
            "energy_standard_error_j": energy_j * energy_weight**-0.5,
            "samples": one.samples + other.samples,
        }
    )
