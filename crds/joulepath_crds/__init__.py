"""The contract between operator and agents: EnergyPlan, EnergyProfile, JobPlan and NodeReport as typed models.

The YAML beside this package is generated from these models (``python -m joulepath_crds``); a test holds both equal.
"""

from __future__ import annotations

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
    Arm,
    Blocks,
    JobPlanSpec,
    Purpose,
    StagePlan,
    Sweep,
    arm_of,
    content_hash,
    next_boundary,
)
from joulepath_crds.nodereport import (
    BlockReport,
    GpuReport,
    InstructionMeasurement,
    InstructionTime,
    JobReport,
    NodeReportStatus,
    RankReport,
    RankState,
    SwitchingLag,
    WaitMeasurement,
)
from joulepath_crds.topology import Coordinates, Topology

ANNOTATION = f"{GROUP}/energy-plan"

__all__ = [
    "ANNOTATION",
    "GROUP",
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
    "InstructionMeasurement",
    "InstructionTime",
    "JobPlanSpec",
    "JobReference",
    "JobReport",
    "KindProfile",
    "MeasuredSavings",
    "Measurement",
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
    "api_name",
    "arm_of",
    "content_hash",
    "next_boundary",
]
