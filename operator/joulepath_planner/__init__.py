"""Joulepath's planner: a profile and a schedule in, the clock of every instruction out.

Pure: no Kubernetes, no sockets, no wall clock, no torch. Seconds, joules, watts and MHz throughout.
"""

from __future__ import annotations

from joulepath_planner.explain import Explainer, Explanation, Neighbour
from joulepath_planner.fit import Fit, Residual, fit
from joulepath_planner.frontier import Frontier, FrontierPoint, frontier
from joulepath_planner.granularity import Granularity
from joulepath_planner.lags import LagTable
from joulepath_planner.objectives import (
    ObjectiveError,
    beside_straggler,
    least_energy_by,
    least_energy_within_slowdown,
    least_time_within_energy,
    least_time_within_power,
)
from joulepath_planner.pipeline import Pipeline
from joulepath_planner.plan import Plan, PlannedInstruction, RankPlan, plan
from joulepath_planner.profile import Point, Profile, ProfileError
from joulepath_planner.program import PlanningError
from joulepath_planner.referee import Event, RankEnergy, Simulation, simulate
from joulepath_planner.robustness import Noise, Robustness, RobustPlan, Spread, robust_plan, robustness
from joulepath_planner.schedule import Instruction, Schedule, ScheduleError, gpipe, one_f_one_b, recorded
from joulepath_planner.stragglers import Job, Replica, Share, plan_beside, share_out

__all__ = [
    "Event",
    "Explainer",
    "Explanation",
    "Fit",
    "Frontier",
    "FrontierPoint",
    "Granularity",
    "Instruction",
    "Job",
    "LagTable",
    "Neighbour",
    "Noise",
    "ObjectiveError",
    "Pipeline",
    "Plan",
    "PlannedInstruction",
    "PlanningError",
    "Point",
    "Profile",
    "ProfileError",
    "RankEnergy",
    "RankPlan",
    "Replica",
    "Residual",
    "RobustPlan",
    "Robustness",
    "Schedule",
    "ScheduleError",
    "Share",
    "Simulation",
    "Spread",
    "beside_straggler",
    "fit",
    "frontier",
    "gpipe",
    "least_energy_by",
    "least_energy_within_slowdown",
    "least_time_within_energy",
    "least_time_within_power",
    "one_f_one_b",
    "plan",
    "plan_beside",
    "recorded",
    "robust_plan",
    "robustness",
    "share_out",
    "simulate",
]
