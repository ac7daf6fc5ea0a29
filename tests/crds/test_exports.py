"""What the contract promises to whoever imports it: a name that goes, goes here first."""

from __future__ import annotations

import joulepath_crds

EXPORTS = """
    ANNOTATION GROUP INJECTOR_ABSENT INJECTOR_READY INJECTOR_UNHEARD INJECTOR_UNTOLD INSTRUCTION_KINDS MARGIN
    MOST_BLOCKS MOST_INJECTIONS MOST_OLD_PYTHONS MOST_TARGETS
    POLICY_HEARD POLICY_NAME POLICY_PAUSED POLICY_PAUSING POLICY_UNHEARD
    REPORT_INTERVAL_S TAIL_LAGS VERSION Arm ArmSummary BlockReport BlockingPower Blocks
    Condition Contract Coordinates EarlierRounds EnergyPlanSpec EnergyPlanStatus
    EnergyPolicySpec EnergyProfileSpec Estimate
    FrontierPoint GpuReport Granularity InjectionReport Instruction InstructionMeasurement InstructionTime JobPlanSpec
    JOB_NAMES JOB_UID_LABEL JobKindName JobName JobReference JobReport KindProfile
    LeastClock MeasuredSavings Measurement MeasurementBudget MetricRow Mode Namespaces NodeReportStatus
    OldPythonReport Origin Phase PlanSummary
    ProfilePoint Profiling ProfilingBudget Purpose RankReport RankState Reuse Setback StagePlan
    StageProfile Sweep SwitchingCost SwitchingLag TargetLag Topology Transfer WaitMeasurement WithdrawnPlan
    api_name arm_of content_hash controller held_clock_mhz maker meets next_boundary read_policy
"""


def test_the_exported_names_are_those_promised() -> None:
    assert sorted(joulepath_crds.__all__) == sorted(EXPORTS.split())
    assert all(hasattr(joulepath_crds, name) for name in joulepath_crds.__all__)
