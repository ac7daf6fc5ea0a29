"""Joulepath's planner: a profile and a schedule in, the clock of every instruction out.

Pure: no Kubernetes, no sockets, no wall clock, no torch. Seconds, joules, watts and MHz throughout.
"""

from __future__ import annotations

from joulepath_planner.fit import Fit, Residual, fit
from joulepath_planner.frontier import Frontier, FrontierPoint, frontier
from joulepath_planner.granularity import Granularity
from joulepath_planner.lags import LagTable
from joulepath_planner.pipeline import Pipeline
from joulepath_planner.plan import Plan, PlannedInstruction, RankPlan, plan
from joulepath_planner.profile import Point, Profile, ProfileError
from joulepath_planner.program import PlanningError
from joulepath_planner.referee import Event, RankEnergy, Simulation, simulate
from joulepath_planner.schedule import Instruction, Schedule, ScheduleError, gpipe, one_f_one_b, recorded

__all__ = [
    "Event",
    "Fit",
    "Frontier",
    "FrontierPoint",
    "Granularity",
    "Instruction",
    "LagTable",
    "Pipeline",
    "Plan",
    "PlannedInstruction",
    "PlanningError",
    "Point",
    "Profile",
    "ProfileError",
    "RankEnergy",
    "RankPlan",
    "Residual",
    "Schedule",
    "ScheduleError",
    "Simulation",
    "fit",
    "frontier",
    "gpipe",
    "one_f_one_b",
    "plan",
    "recorded",
    "simulate",
]
