"""What the contract promises to whoever imports it: a name that goes, goes here first."""

from __future__ import annotations

import joulepath_crds

EXPORTS = """
    ANNOTATION GROUP INJECTOR_ABSENT INJECTOR_READY INJECTOR_UNHEARD INJECTOR_UNTOLD INSTRUCTION_KINDS MARGIN
    MOST_BLOCKS MOST_INJECTIONS MOST_OLD_PYTHONS MOST_TARGETS
    REPORT_INTERVAL_S TAIL_LAGS VERSION Arm ArmSummary BlockReport BlockingPower Blocks
    Condition Contract Coordinates EarlierRounds EnergyPlanSpec EnergyPlanStatus EnergyProfileSpec Estimate
    FrontierPoint GpuReport Granularity InjectionReport Instruction InstructionMeasurement InstructionTime JobPlanSpec
    JOB_NAMES JOB_UID_LABEL JobKindName JobName JobReference JobReport KindProfile
    MeasuredSavings Measurement MetricRow Mode NodeReportStatus
    OldPythonReport Origin Phase PlanSummary
    ProfilePoint Profiling Purpose RankReport RankState Reuse Setback StagePlan StageProfile Sweep SwitchingCost
    SwitchingLag TargetLag Topology Transfer WaitMeasurement WithdrawnPlan
    api_name arm_of content_hash controller held_clock_mhz maker meets next_boundary
"""


def test_the_exported_names_are_those_promised() -> None:
    assert sorted(joulepath_crds.__all__) == sorted(EXPORTS.split())
    assert all(hasattr(joulepath_crds, name) for name in joulepath_crds.__all__)
