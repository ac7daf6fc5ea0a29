"""The contract between operator and agents: EnergyPlan, EnergyProfile, JobPlan and NodeReport as typed models.

The YAML beside this package is generated from these models (`python -m joulepath_crds`); a test holds both equal.
"""

from __future__ import annotations

from typing import Final

from joulepath_crds.contract import GROUP, VERSION, Contract, api_name
from joulepath_crds.energyplan import (
    ArmSummary,
    Condition,
    EnergyPlanSpec,
    EnergyPlanStatus,
    Estimate,
    FrontierPoint,
    Granularity,
    JobReference,
    MeasuredSavings,
    Measurement,
    Mode,
    Phase,
    PlanSummary,
    Profiling,
    WithdrawnPlan,
)
from joulepath_crds.energyprofile import (
    BlockingPower,
    EnergyProfileSpec,
    KindProfile,
    ProfilePoint,
    StageProfile,
    Transfer,
)
from joulepath_crds.jobplan import (
    Blocks,
    JobPlanSpec,
    StagePlan,
    Sweep,
    content_hash,
)
from joulepath_crds.metrics import MetricRow
from joulepath_crds.nodereport import (
    INJECTOR_ABSENT,
    INJECTOR_READY,
    INJECTOR_UNHEARD,
    INJECTOR_UNTOLD,
    MOST_BLOCKS,
    MOST_INJECTIONS,
    REPORT_INTERVAL_S,
    BlockReport,
    GpuReport,
    InjectionReport,
    InstructionMeasurement,
    InstructionTime,
    JobReport,
    NodeReportStatus,
    RankReport,
    SwitchingLag,
    WaitMeasurement,
)
from joulepath_crds.topology import Coordinates, Topology
from joulepath_rules import (
    INSTRUCTION_KINDS,
    MARGIN,
    TAIL_LAGS,
    Arm,
    Instruction,
    Purpose,
    RankState,
    arm_of,
    next_boundary,
)

ANNOTATION: Final = f"{GROUP}/energy-plan"

__all__ = [
    "ANNOTATION",
    "GROUP",
    "INJECTOR_ABSENT",
    "INJECTOR_READY",
    "INJECTOR_UNHEARD",
    "INJECTOR_UNTOLD",
    "INSTRUCTION_KINDS",
    "MARGIN",
    "MOST_BLOCKS",
    "MOST_INJECTIONS",
    "REPORT_INTERVAL_S",
    "TAIL_LAGS",
    "VERSION",
    "Arm",
    "ArmSummary",
    "BlockReport",
    "BlockingPower",
    "Blocks",
    "Condition",
    "Contract",
    "Coordinates",
    "EnergyPlanSpec",
    "EnergyPlanStatus",
    "EnergyProfileSpec",
    "Estimate",
    "FrontierPoint",
    "GpuReport",
    "Granularity",
    "InjectionReport",
    "Instruction",
    "InstructionMeasurement",
    "InstructionTime",
    "JobPlanSpec",
    "JobReference",
    "JobReport",
    "KindProfile",
    "MeasuredSavings",
    "Measurement",
    "MetricRow",
    "Mode",
    "NodeReportStatus",
    "Phase",
    "PlanSummary",
    "ProfilePoint",
    "Profiling",
    "Purpose",
    "RankReport",
    "RankState",
    "StagePlan",
    "StageProfile",
    "Sweep",
    "SwitchingLag",
    "Topology",
    "Transfer",
    "WaitMeasurement",
    "WithdrawnPlan",
    "api_name",
    "arm_of",
    "content_hash",
    "next_boundary",
]
