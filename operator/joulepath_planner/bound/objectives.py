"""What a user may ask of a frontier, answered from it alone.

Each answer is the point of the frontier to plan for: `plan(pipeline, deadline_s=answer.iteration_time_s)`. Energy by
iteration time is convex, so that one bisection over the breakpoints finds where a budget is first met; between
breakpoints the frontier is a straight line, which makes that time exact where all breakpoints are known.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from joulepath_planner.arguments import checked
from joulepath_planner.bound.frontier import Frontier, FrontierPoint
from joulepath_planner.errors import ObjectiveError

__all__ = [
    "least_energy_by",
    "least_energy_within_slowdown",
    "least_time_within_energy",
    "least_time_within_power",
]

_LESS: Final = 1 - 1e-9
"""What floating point may take off a deadline that is meant to be T_min, or a budget that is meant to be just met."""


@checked
def least_energy_within_slowdown(frontier: Frontier, slowdown: float) -> FrontierPoint:
    """Least energy at an iteration time of at most T_min x (1 + `slowdown`).

    Raises:
        ObjectiveError: The slowdown is under 0.
    """
    if not slowdown >= 0:
        raise ObjectiveError(f"the slowdown is {slowdown:g}; it is a fraction of T_min, 0 or more.")
    return least_energy_by(frontier, frontier.t_min_s * (1 + slowdown))


@checked
def least_energy_by(frontier: Frontier, deadline_s: float) -> FrontierPoint:
    """Least energy of an iteration that ends by the deadline.

    Raises:
        ObjectiveError: The deadline is under T_min.
    """
    if not deadline_s >= frontier.t_min_s * _LESS:
        raise ObjectiveError(
            f"the deadline of {deadline_s:g} s is under T_min, {frontier.t_min_s:.6g} s; allow at least T_min."
        )
    return frontier.at(min(max(deadline_s, frontier.t_min_s), frontier.t_star_free_s))


@checked
def least_time_within_energy(frontier: Frontier, budget_j: float) -> FrontierPoint:
    """Least iteration time at which an iteration costs at most so many joules.

    Raises:
        ObjectiveError: No iteration time costs as little.
    """
    time_s = _first_within(frontier, lambda point: point.free_energy_j * _LESS - budget_j)
    if time_s is None:
        least = frontier.at(frontier.t_star_free_s)
        raise ObjectiveError(
            f"no iteration time costs as little as {budget_j:g} J; the least is {least.free_energy_j:.6g} J, "
            f"at {least.iteration_time_s:.6g} s. Allow that much."
        )
    return frontier.at(time_s)


@checked
def least_time_within_power(frontier: Frontier, budget_w: float) -> FrontierPoint:
    """Least iteration time at which all GPUs together draw at most so many watts, averaged over the iteration.

    Raises:
        ObjectiveError: No iteration time up to T*_fixed draws as little.
    """
    time_s = _first_within(frontier, lambda point: point.energy_j * _LESS - budget_w * point.iteration_time_s)
    if time_s is None:
        least_w = min(point.energy_j / point.iteration_time_s for point in frontier.points)
        raise ObjectiveError(
            f"no iteration time up to T*_fixed, {frontier.t_star_fixed_s:.6g} s, draws as little as {budget_w:g} W; "
            f"the least is {least_w:.6g} W. Allow that much."
        )
    return frontier.at(time_s)


def _first_within(frontier: Frontier, excess: Callable[[FrontierPoint], float]) -> float | None:
    """The least iteration time where `excess`, convex over the frontier, is 0 or less; None if there is none."""
    points = frontier.points

    def met_or_rising(index: int) -> bool:  # once true, true for all later points
        here = excess(points[index])
        return here <= 0 or (index > 0 and here >= excess(points[index - 1]))

    index = bisect_left(range(len(points)), True, key=met_or_rising)
    if index == len(points) or excess(points[index]) > 0:
        return None
    there = points[index]
    if index == 0:
        return there.iteration_time_s
    before = points[index - 1]
    share = excess(before) / (excess(before) - excess(there))
    return before.iteration_time_s + share * (there.iteration_time_s - before.iteration_time_s)
