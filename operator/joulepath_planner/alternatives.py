"""What coarser control costs: the plan of each granularity beside its lower bound.

Instructions that share a clock can do no better than the same with one clock for each kind among them: that relaxation
has one series of clocks a group, so that its hull, and the linear program on it, is a true bound. It holds for clocks
that switch at once. With lags instructions run at two clocks for a while, which coarser plans don't ask for but get;
then only the bound of instruction granularity holds, for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from joulepath_planner.arguments import checked
from joulepath_planner.graph.groups import Granularity
from joulepath_planner.inputs.lags import LagTable
from joulepath_planner.inputs.pipeline import Pipeline
from joulepath_planner.plan import planned, prepared

__all__ = ["Alternative", "alternatives"]


@dataclass(frozen=True, slots=True)
class Alternative:
    """energy_j, iteration_time_s and switches are those of the plan of at most this granularity, by the referee;
    lower_bound_j holds for every plan of this granularity by the same deadline whose clocks switch at once."""

    granularity: Granularity
    energy_j: float
    iteration_time_s: float
    switches: int
    lower_bound_j: float


@checked
def alternatives(
    pipeline: Pipeline,
    *,
    deadline_s: float | None = None,
    slowdown: float = 0.0,
    lags: LagTable | None = None,
    default_clock_mhz: int | None = None,
    reserve: float = 0.0,
    min_dwell_s: float = 0.0,
) -> tuple[Alternative, ...]:
    """A plan for each granularity, from the finest to the coarsest. Arguments and errors as `plan`."""
    drafting, deadline = prepared(pipeline.capped(default_clock_mhz), deadline_s, slowdown, lags, reserve, min_dwell_s)
    found = []
    for granularity in get_args(Granularity):
        made, bound = (
            planned(drafting, deadline, granularity, uncapped=pipeline),
            drafting.relaxed_bound_j(granularity, deadline),
        )
        found.append(Alternative(granularity, made.energy_j, made.iteration_time_s, made.switches, bound))
    return tuple(found)
