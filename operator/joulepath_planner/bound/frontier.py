"""The frontier: the least energy for each iteration time, as a lower bound for every plan of supported clocks."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from joulepath_planner.arguments import checked
from joulepath_planner.bound.problem import Problem
from joulepath_planner.errors import ArgumentError, PlanningError
from joulepath_planner.graph.graph import least_period_s
from joulepath_planner.graph.options import Options
from joulepath_planner.inputs.pipeline import Pipeline
from joulepath_planner.solvers.solution import Program, Solution

__all__ = ["Frontier", "FrontierPoint", "frontier", "t_fixed_s", "trace"]

_RELATIVE: Final = 1e-9
"""What floating point may take off a time that is meant to be T_min."""
_BEND: Final = 1e-6
"""Relative: bends of the frontier that matter less than this are not looked for."""


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """energy_j: at exactly this iteration time, waits until its end included; free_energy_j: by this deadline.

    slope_w: by how much energy_j grows per second of iteration time; at a breakpoint one of the slopes between those
    on its two sides. Negative before T*_free.
    """

    iteration_time_s: float
    energy_j: float
    free_energy_j: float
    slope_w: float

    @property
    def price_w(self) -> float:
        """How many joules a second more of iteration time saves here; 0 from T*_free on."""
        return max(0.0, -self.slope_w)


@dataclass(frozen=True, slots=True)
class Frontier:
    """Points from T_min to T*_fixed. All energies are lower bounds in joules per iteration, all ranks together.

    baseline_energy_j: of an iteration at default clocks; default_wait_w: what all GPUs draw that wait at those.
    """

    t_min_s: float
    t_star_free_s: float
    t_star_fixed_s: float
    baseline_energy_j: float
    default_wait_w: float
    points: tuple[FrontierPoint, ...]

    @checked
    def at(self, iteration_time_s: float) -> FrontierPoint:
        """The frontier at any time from T_min on: the highest tangent of the points beside it.

        Never above the true frontier, as that is convex, and equal to it where all breakpoints are known. From
        T*_fixed on a longer iteration only waits longer.

        Raises:
            PlanningError: The time is under T_min.
        """
        times = [point.iteration_time_s for point in self.points]
        if not iteration_time_s >= times[0] * (1 - _RELATIVE):
            raise PlanningError(
                f"no plan has an iteration time of {iteration_time_s:.6f} s: T_min is {times[0]:.6f} s."
            )
        right = bisect_left(times, iteration_time_s)
        beside = self.points[max(0, right - 1) : right + 1]
        energy, slope = max(
            (point.energy_j + point.slope_w * (iteration_time_s - point.iteration_time_s), point.slope_w)
            for point in beside
        )
        least = self.points[-1].free_energy_j
        free = least if iteration_time_s >= self.t_star_free_s else max(energy, least)
        return FrontierPoint(iteration_time_s, energy, free, slope)

    @property
    def outline(self) -> list[tuple[float, float]]:
        """(seconds, joules) that straight lines may join: the points, and where the tangents of two beside each other
        meet. What `at` says of every time between."""
        met = [
            (left.iteration_time_s + part, left.energy_j + left.slope_w * part)
            for left, right in pairwise(self.points)
            if (part := _meet_s(left, right)) is not None
        ]
        return sorted([*met, *((point.iteration_time_s, point.energy_j) for point in self.points)])


@checked
def frontier(
    pipeline: Pipeline,
    points: int | None = 33,
    *,
    default_clock_mhz: int | None = None,
    host_power_w: float = 0.0,
) -> Frontier:
    """The frontier from T_min to T*_fixed.

    points: how many iteration times (2 or more), evenly spaced; None: wherever the frontier bends by more than a
        millionth of its energy, so that `at` is that exact everywhere.
    host_power_w: watts of the host for each GPU. They are charged while the iteration time is free to choose, which
        moves T*_free, and are in no energy that is reported.

    Raises:
        ArgumentError: An argument is out of range.
        ScheduleError: An instruction waits for itself or for nobody.
    """
    if points is not None and points < 2:
        raise ArgumentError(f"points is {points}; a frontier has at least its 2 ends.")
    if not (math.isfinite(host_power_w) and host_power_w >= 0):
        raise ArgumentError(f"host_power_w is {host_power_w}; it must be a finite number of watts, 0 or more.")
    problem = Problem.of(pipeline.capped(default_clock_mhz))
    program, options = problem.program(problem.single)
    host_w = host_power_w * problem.pipeline.gpu_count
    free = problem.program(problem.single, host_w=host_w)[0] if host_w else program
    return trace(problem, options, lambda time_s: program.solve(time_s, time_s), free, points, host_w)


def trace(
    problem: Problem,
    options: Sequence[Options],
    solve: Callable[[float], Solution],
    free: Program,
    points: int | None,
    host_w: float = 0.0,
) -> Frontier:
    """`frontier`, of a problem made ready.

    solve: the least energy at exactly an iteration time; free: the program that leaves it free, with the host's watts.
    """
    t_min = problem.t_min_s
    t_fixed = t_fixed_s(problem, options)

    def at(time_s: float) -> FrontierPoint:
        found = solve(time_s)
        slope = found.slope_w if time_s < t_fixed else problem.idle_w
        return FrontierPoint(time_s, found.energy_j, found.energy_j, slope)

    if points is None:
        known = _bends(at, t_min, t_fixed)
    else:
        known = [at(t_min + (t_fixed - t_min) * index / (points - 1)) for index in range(points)]
    least = free.solve(t_fixed, t_min)
    least_j = least.energy_j - host_w * least.period_s
    return Frontier(
        t_min,
        least.period_s,
        t_fixed,
        problem.baseline_energy_j,
        problem.default_wait_w,
        tuple(
            point if point.iteration_time_s <= least.period_s else replace(point, free_energy_j=least_j)
            for point in known
        ),
    )


def t_fixed_s(problem: Problem, options: Sequence[Options]) -> float:
    """T*_fixed: the period with every instruction at its least effective energy."""
    lasts_s = [option.times_s[option.hull[-1]][0] for option in options]
    return max(problem.t_min_s, least_period_s(problem.graph, lasts_s))


def _bends(at: Callable[[float], FrontierPoint], first_s: float, last_s: float) -> list[FrontierPoint]:
    """Points between which the higher of their two tangents is the frontier.

    Where two tangents meet, the frontier either bends or lies above them; there it is asked next.
    """
    known = [at(first_s), at(last_s)]
    spans = [(known[0], known[1])] if last_s > first_s else []
    while spans:
        left, right = spans.pop()
        width, rise = right.iteration_time_s - left.iteration_time_s, right.energy_j - left.energy_j
        part = _meet_s(left, right)
        if part is None or (rise / width - left.slope_w) * part <= _BEND * left.energy_j:
            continue
        middle = at(left.iteration_time_s + part)
        known.append(middle)
        if middle.energy_j - left.energy_j - left.slope_w * part > _BEND * left.energy_j:
            spans += [(left, middle), (middle, right)]
    return sorted(known, key=lambda point: point.iteration_time_s)


def _meet_s(left: FrontierPoint, right: FrontierPoint) -> float | None:
    """How long after the left point the tangents of two meet; None where they don't meet between them."""
    width, rise = right.iteration_time_s - left.iteration_time_s, right.energy_j - left.energy_j
    turn = right.slope_w - left.slope_w
    part = (right.slope_w * width - rise) / turn if turn > 0 else 0.0
    return part if 0 < part < width else None
