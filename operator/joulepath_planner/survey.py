"""How well a frontier is known by the clocks that were measured, and which clock tells most of what isn't.

The frontier is worked out in ways in which the truth may be: what they differ by is its uncertainty. They are the draws
of the fit, which count on a curve, and on each what no curve has, such as a step. How much that is the newest clocks
tell, which were predicted before they were measured; it is nothing at a clock that is measured, and more the farther
away those are (a Gaussian process). A plan on clocks between is late by as much, so this counts too, and so does by how
much the newest clocks have moved the frontier: the largest of the three.

What a clock would tell is how much of that goes with what the ways say of the clock itself, less what measuring it
leaves open (the conditional variance of two things that vary together). After one clock is chosen, what it tells is
taken from the ways, so that the next one tells something else.

Of long iterations a short one of the same schedule is looked at: its first microbatches, the rest left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from joulepath_planner.arguments import checked
from joulepath_planner.arrays import Floats
from joulepath_planner.bound.frontier import t_fixed_s
from joulepath_planner.bound.problem import Problem
from joulepath_planner.graph.graph import least_period_s
from joulepath_planner.graph.options import OptionTable
from joulepath_planner.inputs.fit import Fit, fit
from joulepath_planner.inputs.instruction import Instruction, StageKind
from joulepath_planner.inputs.pipeline import Pipeline
from joulepath_planner.inputs.profile import Point, Profile
from joulepath_planner.inputs.schedule import Schedule

__all__ = ["Survey", "survey"]

_SURE: Final = 1.96
"""Standard errors on each side of a 95% interval."""
_WAYS: Final = 24
"""Of the draws: a standard error of them is known to a seventh."""
_POINTS: Final = 3
"""Of the frontier, from T_min to T*_free."""
_INSTRUCTIONS: Final = 200
"""So many are worked out within a hundredth of a second."""
_REACH: Final = 0.08
"""How far in clock, as a fraction, what no curve has stays alike."""
_STEPS: Final = 0.01
"""What no curve has, as a standard deviation, while nothing tells it."""
_MOST_STEPS: Final = 0.3
"""The same at most: with more, anything may be."""
_LEAST: Final = 3
"""Clocks of a series without which it says nothing of a curve."""


@dataclass(frozen=True, slots=True)
class Survey:
    """uncertainty: half the 95% interval of the frontier's energy where it is known least, or of the seconds of clocks
    that were not measured, as a fraction; infinite while no clock was measured that had been predicted.
    tells_most_mhz: the clocks to measure next, that which tells most first."""

    uncertainty: float
    tells_most_mhz: tuple[int, ...]


@checked
def survey(
    pipeline: Pipeline,
    supported_clocks_mhz: Collection[int],
    newest_mhz: Collection[int],
    candidates_mhz: Collection[int],
    count: int,
) -> Survey:
    """How well the frontier of a measured pipeline is known, and up to `count` of the candidates that tell most of it.

    newest_mhz: what was measured last, after the rest had been looked at; if nothing is, it isn't known how far curves
    are right. A candidate outside of the clocks that were measured tells nothing.

    Raises:
        PlannerError: Nothing can be planned on what was measured.
    """
    fitted = fit(pipeline.profile, supported_clocks_mhz)
    likely = Problem.of(replace(pipeline.running(_short(pipeline)), profile=fitted.likely))
    factors, prices_w = _asked(likely)
    mean_j = np.array(_energies_j(likely, fitted.likely, factors))
    steps, wrong = _STEPS, math.inf
    if (before := _without(pipeline.profile, newest_mhz)) is not None:
        predicted = fit(before, supported_clocks_mhz).likely
        steps = _steps(pipeline.profile, before, predicted, newest_mhz)
        wrong = float(np.abs(np.array(_energies_j(likely, predicted, factors)) / mean_j - 1).max())
    clocks = sorted({point.clock_mhz for points in fitted.likely.points.values() for point in points})
    unknown = _unknown(_clocks(pipeline.profile), clocks)
    late = steps * float(np.sqrt(np.diag(unknown).mean()))
    root = np.linalg.cholesky(unknown + 1e-9 * np.eye(len(clocks)))
    bends = np.exp(steps * root @ np.random.default_rng(0).standard_normal((len(clocks), _WAYS)))
    ways = _ways(fitted, dict(zip(clocks, bends, strict=True)))
    energies_j = np.array([_energies_j(likely, _way(fitted, ways, place), factors) for place in range(_WAYS)])
    off = (energies_j - energies_j.mean(axis=0)) / mean_j
    error = max(float(off.std(axis=0, ddof=1).max()), late)
    told = {clock: _told(likely.pipeline, ways, pipeline.profile, prices_w, clock) for clock in candidates_mhz}
    return Survey(max(_SURE * error, wrong), _choose(off, told, count))


_Ways = dict[StageKind, dict[int, tuple[Floats, Floats]]]
"""Seconds and joules of each kind at each clock, in every way."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What a clock says: joules of an iteration in each way, less their mean. noise: what measuring it leaves open, the
    variance times the ways."""

    ways: Floats
    noise: float


_Prices = dict[StageKind, float]
"""What a second less of each kind is worth, in watts."""


def _without(profile: Profile, newest_mhz: Collection[int]) -> Profile | None:
    """The profile before its newest clocks were measured; None where nothing was missing, or nearly all."""
    newest = set(newest_mhz)
    left = {
        key: tuple(one for one in points if one.clock_mhz not in newest or profile.is_fixed(*key))
        for key, points in profile.points.items()
    }
    if left == profile.points or any(len(left[key]) < _LEAST for key in left if not profile.is_fixed(*key)):
        return None
    return Profile(left, profile.blocking_power_w, profile.fixed)


def _clocks(profile: Profile) -> list[int]:
    series = (points for key, points in profile.points.items() if not profile.is_fixed(*key))
    return sorted({point.clock_mhz for points in series for point in points})


def _steps(measured: Profile, before: Profile, predicted: Profile, newest_mhz: Collection[int]) -> float:
    """The standard deviation of what no curve has, by how far the seconds of the newest clocks are off."""
    newest = set(newest_mhz) & set(_clocks(measured))
    expected = dict(zip(sorted(newest), np.diag(_unknown(_clocks(before), sorted(newest))), strict=True))
    squares = [
        (point.time_s / predicted.at(*key, point.clock_mhz)[0] - 1) ** 2 / expected[point.clock_mhz]
        for key, points in measured.points.items()
        for point in points
        if point.clock_mhz in newest and not measured.is_fixed(*key)
    ]
    return min(_MOST_STEPS, float(np.sqrt(np.mean(squares))))


def _unknown(known_mhz: Sequence[int], at_mhz: Sequence[int]) -> Floats:
    """The covariance of what no curve has at these clocks, of a variance of 1, given that it is seen at known ones."""

    def together(one: Sequence[int], other: Sequence[int]) -> Floats:
        found: Floats = np.exp(-np.abs(np.log(one)[:, None] - np.log(other)) / _REACH)
        return found

    by = together(at_mhz, known_mhz)
    found: Floats = together(at_mhz, at_mhz) - by @ np.linalg.solve(together(known_mhz, known_mhz), by.T)
    return found


def _ways(fitted: Fit, bends: Mapping[int, Floats]) -> _Ways:
    """bends: by clock, what no curve has, in each way."""
    return {
        key: {
            point.clock_mhz: (
                seconds[:_WAYS, place] * bends[point.clock_mhz],
                joules[:_WAYS, place] * bends[point.clock_mhz],
            )
            for place, point in enumerate(fitted.likely.points[key])
        }
        for key, (seconds, joules) in fitted.draws.items()
    }


def _short(pipeline: Pipeline) -> Schedule:
    """The schedule with the first microbatches only, and the marks of messages that are left with both of their ends.

    A half that is left of a pair runs alone; where none of its kind was measured, all microbatches stay."""
    schedule = pipeline.schedule
    microbatches = sorted({half.microbatch for order in schedule.orders for one in order for half in one.halves})
    each = sum(map(len, schedule.orders)) / len(microbatches)
    kept = set(microbatches[: max(1, int(_INSTRUCTIONS / each))])
    if len(kept) == len(microbatches):
        return schedule
    orders = [
        [part for one in order for part in _parts([half for half in one.halves if half.microbatch in kept], one)]
        for order in schedule.orders
    ]
    left = {one for order in orders for one in order}
    if not {(one.stage, one.kind) for one in left} <= pipeline.profile.points.keys():
        return schedule
    return Schedule(
        tuple(map(tuple, orders)),
        sent_after={one: at for one, at in schedule.sent_after.items() if {one, at} <= left},
        awaited_before={one: at for one, at in schedule.awaited_before.items() if {one, at} <= left},
        held=schedule.held & left,
    )


def _parts(halves: list[Instruction], whole: Instruction) -> list[Instruction]:
    return [whole] if len(halves) == len(whole.halves) else halves


def _asked(likely: Problem) -> tuple[Floats, _Prices]:
    """Iteration times as multiples of T_min, and what a second less of each (stage, kind) is worth, as likely."""
    program, options = likely.program(likely.single)
    last_s = program.solve(t_fixed_s(likely, options), likely.t_min_s).period_s
    factors = np.linspace(1.0, max(1.0, last_s / likely.t_min_s), _POINTS)
    found: dict[StageKind, list[float]] = {}
    for factor in factors:
        bought = program.solve(factor * likely.t_min_s, factor * likely.t_min_s).extra_s
        for one, option, extra_s in zip(likely.graph.instructions, options, bought, strict=True):
            times, joules = (np.array(row)[list(option.hull)] for row in (option.total_s, option.effective_j))
            step = min(int(np.searchsorted(times - times[0], extra_s)), len(times) - 1)
            price = -(joules[step] - joules[step - 1]) / (times[step] - times[step - 1]) if step else 0.0
            found.setdefault((one.stage, one.kind), []).append(float(price))
    return factors, {key: float(np.mean(prices)) for key, prices in found.items()}


def _way(fitted: Fit, ways: _Ways, place: int) -> Profile:
    """The profile as it may be."""
    points = dict(fitted.likely.points)
    for key, at in ways.items():
        points[key] = tuple(
            Point(clock, float(seconds[place]), float(joules[place])) for clock, (seconds, joules) in at.items()
        )
    return Profile(points, fitted.likely.blocking_power_w, fitted.likely.fixed)


def _energies_j(likely: Problem, profile: Profile, factors: Floats) -> list[float]:
    """The frontier at these multiples of T_min, if the profile is this."""
    pipeline = replace(likely.pipeline, profile=profile)
    defaults = [profile.default(one.stage, one.kind).time_s for one in likely.graph.instructions]
    table = OptionTable(profile, likely.power_w, gpus=pipeline.gpus)
    problem = Problem(pipeline, likely.graph, table, likely.power_w, least_period_s(likely.graph, defaults))
    program, _ = problem.program(problem.single)
    return [program.solve(factor * problem.t_min_s, factor * problem.t_min_s).energy_j for factor in factors]


def _told(pipeline: Pipeline, of: _Ways, measured: Profile, prices_w: _Prices, clock_mhz: int) -> _Told:
    """What an iteration at this clock costs in each way: joules, and seconds at what they are worth."""
    ways, noise = np.zeros(_WAYS), 0.0
    wait_w = pipeline.profile.least_wait_power_w
    counts = Counter((one.stage, one.kind) for order in pipeline.schedule.orders for one in order)
    for key, count in counts.items():
        if clock_mhz in of.get(key, {}):
            seconds, joules = of[key][clock_mhz]
            gpus = pipeline.gpus.get(key[0], 1)
            worth_w = prices_w[key] - wait_w * gpus
            ways += count * (gpus * joules + worth_w * seconds)
            error_s, error_j = (float(np.median(each)) for each in zip(*_errors(measured.points[key]), strict=True))
            noise += count**2 * ((gpus * error_j) ** 2 + (worth_w * error_s) ** 2)
    return _Told(ways - ways.mean(), _WAYS * noise)


def _errors(points: Sequence[Point]) -> list[tuple[float, float]]:
    return [(point.time_se_s, point.energy_se_j) for point in points]


def _choose(off: Floats, told: Mapping[int, _Told], count: int) -> tuple[int, ...]:
    """The clocks that tell most of what the ways differ by, one after the other."""
    chosen, left = list[int](), off
    rows = {clock: one.ways for clock, one in told.items() if one.ways.any()}
    while rows and len(chosen) < count:
        whole = {clock: float(row @ row) + told[clock].noise for clock, row in rows.items()}
        best = max(rows, key=lambda clock: (float(((rows[clock] @ left) ** 2).sum()) / whole[clock], clock))
        by = rows.pop(best)
        left = left - np.outer(by, by @ left) / whole[best]
        rows = {clock: row - by * float(by @ row) / whole[best] for clock, row in rows.items()}
        chosen.append(best)
    return tuple(chosen)
