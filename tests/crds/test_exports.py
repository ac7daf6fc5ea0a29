"""What the contract promises to whoever imports it: a name that goes, goes here first."""

from __future__ import annotations

import joulepath_crds

EXPORTS = """
    ANNOTATION Arm ArmSummary BlockReport BlockingPower Blocks Condition Contract Coordinates EarlierRounds
    EnergyPlanSpec EnergyPlanStatus EnergyPolicySpec EnergyProfileSpec Estimate FrontierPoint GROUP GpuReport
    Granularity INJECTOR_ABSENT INJECTOR_READY INJECTOR_UNHEARD INJECTOR_UNTOLD INSTRUCTION_KINDS
    InjectionReport Instruction InstructionMeasurement InstructionTime JOB_NAMES JOB_UID_LABEL JobKindName
    JobName JobPlanSpec JobReference JobReport KindProfile LeastClock MARGIN MOST_BLOCKS MOST_INJECTIONS
    MOST_OLD_PYTHONS MOST_SLOWDOWN MOST_TARGETS MOST_UNPACKED_BYTES MeasuredSavings Measurement
    MeasurementBudget Measurements MetricRow Mode Namespaces NodeMeasurementStatus NodeReportStatus
    NodeStateStatus OldPythonReport Origin POLICY_HEARD POLICY_NAME POLICY_PAUSED POLICY_PAUSING POLICY_UNHEARD
    Phase PlanSummary ProfilePoint Profiling ProfilingBudget Purpose RankMeasurements RankReport RankState Reuse
    Setback Sort StagePlan StageProfile Straggler Stragglers Stretched StretchedStage Sweep SwitchingCost
    SwitchingLag TAIL_LAGS TargetLag Topology Transfer VERSION WaitMeasurement WithdrawnPlan api_name arm_of
    content_hash controller facts_of held_clock_mhz joined learnt_from maker measured_of meets next_boundary
    read_policy report_interval_s state_of
"""


def test_the_exported_names_are_those_promised() -> None:
    assert sorted(joulepath_crds.__all__) == sorted(EXPORTS.split())
    assert all(hasattr(joulepath_crds, name) for name in joulepath_crds.__all__)
