"""What the planner promises to whoever imports it: a name that goes, goes here first."""

from __future__ import annotations

import joulepath_planner

EXPORTS = """
    Alternative ArgumentError BudgetPlan Certainty Event Explainer Explanation FIXED Fit Frontier FrontierPoint
    Granularity Instruction Job LagTable Neighbour Noise ObjectiveError Pipeline Plan PlannedInstruction
    PlannerError PlanningError Point Profile ProfileError RankEnergy RankPlan Referee Replica Residual RobustPlan
    Robustness SCHEDULES Saving Schedule ScheduleError Share Simulation SolverError Spread SurePlan Survey alternatives
    beside_straggler certainty dependencies dualpipev early_recomputation_1f1b fit frontier frontier_plans gpipe
    interleaved_1f1b interleaved_zb least_energy_by least_energy_within_slowdown least_time_within_energy
    least_time_within_power one_f_one_b perseus_clocks perseus_text plan plan_within recorded robust_plan robustness
    schedule_by_name share_out simulate sure_plan survey zb_h1 zbv
"""


def test_the_exported_names_are_those_promised() -> None:
    assert sorted(joulepath_planner.__all__) == sorted(EXPORTS.split())
    assert all(hasattr(joulepath_planner, name) for name in joulepath_planner.__all__)
