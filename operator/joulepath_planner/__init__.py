"""Joulepath's planner: a profile and a schedule in, the clock of every instruction out.

Pure: no Kubernetes, no sockets, no torch, and no clock but the one that ends `polish_s`. Seconds, joules, watts and MHz
throughout. On this level stand the questions that a user asks; what answers them, in wings that know only those before
them (the referee knows `inputs` alone):

- `inputs`: what is given
- `graph`: what waits for what, and what can be chosen
- `solvers`: the linear program
- `bound`: what no plan can beat
- `clocks`: from the linear program's seconds to clocks that a GPU has
- `referee`: what a plan really takes and costs
"""

from __future__ import annotations

from joulepath_planner.alternatives import Alternative, alternatives
from joulepath_planner.bound.frontier import Frontier, FrontierPoint, frontier
from joulepath_planner.bound.objectives import (
    least_energy_by,
    least_energy_within_slowdown,
    least_time_within_energy,
    least_time_within_power,
)
from joulepath_planner.bound.stragglers import Job, Replica, Share, beside_straggler, share_out
from joulepath_planner.budgets import BudgetPlan, plan_within
from joulepath_planner.certainty import Certainty, SurePlan, certainty, sure_plan
from joulepath_planner.errors import (
    ArgumentError,
    ObjectiveError,
    PlannerError,
    PlanningError,
    ProfileError,
    ScheduleError,
    SolverError,
)
from joulepath_planner.explain import Explainer, Explanation, Neighbour, Saving
from joulepath_planner.graph.dependencies import dependencies
from joulepath_planner.graph.groups import Granularity
from joulepath_planner.inputs.fit import Fit, Residual, fit
from joulepath_planner.inputs.instruction import FIXED, Instruction
from joulepath_planner.inputs.lags import LagTable
from joulepath_planner.inputs.orders import (
    SCHEDULES,
    dualpipev,
    early_recomputation_1f1b,
    gpipe,
    interleaved_1f1b,
    interleaved_zb,
    one_f_one_b,
    schedule_by_name,
    zb_h1,
    zbv,
)
from joulepath_planner.inputs.perseus import perseus_clocks, perseus_text
from joulepath_planner.inputs.pipeline import Pipeline
from joulepath_planner.inputs.profile import Point, Profile
from joulepath_planner.inputs.schedule import Schedule, recorded
from joulepath_planner.plan import Plan, PlannedInstruction, RankPlan, frontier_plans, plan
from joulepath_planner.referee.replay import Event, RankEnergy, Referee, Simulation, simulate
from joulepath_planner.robustness import Noise, Robustness, RobustPlan, Spread, robust_plan, robustness
from joulepath_planner.survey import Survey, survey

__all__ = [
    "FIXED",
    "SCHEDULES",
    "Alternative",
    "ArgumentError",
    "BudgetPlan",
    "Certainty",
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
    "PlannerError",
    "PlanningError",
    "Point",
    "Profile",
    "ProfileError",
    "RankEnergy",
    "RankPlan",
    "Referee",
    "Replica",
    "Residual",
    "RobustPlan",
    "Robustness",
    "Saving",
    "Schedule",
    "ScheduleError",
    "Share",
    "Simulation",
    "SolverError",
    "Spread",
    "SurePlan",
    "Survey",
    "alternatives",
    "beside_straggler",
    "certainty",
    "dependencies",
    "dualpipev",
    "early_recomputation_1f1b",
    "fit",
    "frontier",
    "frontier_plans",
    "gpipe",
    "interleaved_1f1b",
    "interleaved_zb",
    "least_energy_by",
    "least_energy_within_slowdown",
    "least_time_within_energy",
    "least_time_within_power",
    "one_f_one_b",
    "perseus_clocks",
    "perseus_text",
    "plan",
    "plan_within",
    "recorded",
    "robust_plan",
    "robustness",
    "schedule_by_name",
    "share_out",
    "simulate",
    "sure_plan",
    "survey",
    "zb_h1",
    "zbv",
]
