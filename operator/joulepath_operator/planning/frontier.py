"""The frontier of a job, beside a plan that is there: as many points as there is time for.

A plan is what a job waits for, and its frontier what a user may look at later; of a large pipeline it takes longer than
the plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import Final

import joulepath_planner as planner
from joulepath_crds import FrontierPoint
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.facts.request import FrontierRequest, FrontierResult, PlanRefusal, PlanRequest
from joulepath_operator.planning.model import Model, modelled

__all__ = ["outline", "points_of"]

_POINTS: Final = (33, 17, 9, 5)
"""The most of these for which there is time."""
_FIRST: Final = 3
"""By these it is known how long a point takes."""
_CAUTION: Final = 2.0
"""How many times longer than these another may take."""


def outline(
    request: FrontierRequest, budget_s: float = inf, clock: Callable[[], float] = time.monotonic
) -> FrontierResult | PlanRefusal:
    """The frontier that belongs to a plan, within about so many seconds."""
    started_s = clock()
    try:
        model = modelled(request.plan)
        if isinstance(model, PlanRefusal):
            return model
        return FrontierResult(points_of(request.plan, model, budget_s - (clock() - started_s), clock))
    except planner.PlannerError as error:
        return PlanRefusal(Refusal.NOT_PLANNABLE, f"The planner refuses: {str(error).rstrip('.')}.")


def points_of(
    request: PlanRequest, model: Model, budget_s: float = inf, clock: Callable[[], float] = time.monotonic
) -> tuple[FrontierPoint, ...]:
    """Evenly spaced in time, in joules of the whole job.

    Raises:
        PlannerError: The model has none.
    """

    def found(count: int) -> planner.Frontier:
        return planner.frontier(model.pipeline, count, default_clock_mhz=request.profile.default_clock_mhz)

    count, started_s = _POINTS[0], clock()
    frontier = found(_FIRST if budget_s < inf else count)
    if budget_s < inf:
        took_s = clock() - started_s
        most = (budget_s - took_s) / (_CAUTION * took_s / _FIRST)
        if (count := next((one for one in _POINTS if one <= most), 0)) > 0:
            frontier = found(count)
    replicas = request.profile.topology.data_parallel
    return tuple(
        FrontierPoint(iteration_time_s=one.iteration_time_s, lower_bound_j=one.energy_j * replicas)
        for one in frontier.points
    )
