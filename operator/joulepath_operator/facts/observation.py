"""What a decision is made from, and what it is: plain values on both sides.

An `Observation` is all that the cluster holds about one EnergyPlan at one moment. A `Decision` is what the cluster
should hold next. Neither knows how to read or write anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from joulepath_crds import (
    EnergyPlanSpec,
    EnergyPlanStatus,
    EnergyProfileSpec,
    GpuReport,
    InjectionReport,
    JobPlanSpec,
    JobReport,
)
from joulepath_operator.facts.request import PlanRefusal, PlanRequest, PlanResult

__all__ = [
    "Decision",
    "NodeAgent",
    "NodeJob",
    "Notice",
    "Observation",
    "Pod",
    "StoredPlan",
    "StoredProfile",
    "TrainingJob",
]


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """The training job, as far as it matters here."""

    uid: str
    name: str
    annotation: str | None
    finished: str | None
    """Succeeded or Failed, once it is."""
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of the job: whether it has the trainer, its node, and why its training doesn't run yet, if so."""

    name: str
    injected: bool
    node: str | None = None
    waiting: str | None = None
    without: InjectionReport | None = None
    """Why it hasn't, where its node has told."""


@dataclass(frozen=True, slots=True)
class NodeAgent:
    """The agent on a node: its pod as NAMESPACE/NAME, None if there is none, and whether the node has a NodeReport."""

    node: str
    pod: str | None
    ready: bool
    reports: bool


@dataclass(frozen=True, slots=True)
class NodeJob:
    """What one node says of the job; `age_s` is how long ago that arrived, on the operator's own clock."""

    node: str
    report: JobReport
    gpus: tuple[GpuReport, ...]
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """A JobPlan of this EnergyPlan; `version` is its resourceVersion, None for one that is yet to be created."""

    name: str
    spec: JobPlanSpec
    inputs: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class StoredProfile:
    """An EnergyProfile of the namespace; `job_uid` names the run that measured it."""

    name: str
    spec: EnergyProfileSpec
    job_uid: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything about one EnergyPlan, at one moment."""

    namespace: str
    name: str
    generation: int
    spec: EnergyPlanSpec
    status: EnergyPlanStatus
    now: str
    """RFC 3339; for lastTransitionTime only."""
    job: TrainingJob | None = None
    nodes: tuple[NodeJob, ...] = ()
    plans: tuple[StoredPlan, ...] = ()
    profiles: tuple[StoredProfile, ...] = ()
    pod_security: str | None = None
    """The level that the namespace enforces, if any, and if it matters: not where nodes inject."""
    nodes_inject: bool = False
    """Whether it is the nodes that put the trainer into pods, and not the webhook."""
    pods: tuple[Pod, ...] = ()
    """The pods of the job; looked up only while ranks are missing."""
    agents: tuple[NodeAgent, ...] = ()
    """The agents of some nodes whose pods run and report no rank."""
    asked: PlanRequest | None = None
    """What the planner was asked after the decision before, if anything."""
    planned: PlanResult | PlanRefusal | None = None
    """Its answer."""


@dataclass(frozen=True, slots=True)
class Notice:
    """An Event at the EnergyPlan: a word in CamelCase and a sentence."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write. Status first, then profile, deletions, plan: whatever is interrupted is decided again."""

    status: EnergyPlanStatus
    write_profile: StoredProfile | None = None
    delete_plans: tuple[str, ...] = ()
    write_plan: StoredPlan | None = None
    ask_planner: PlanRequest | None = None
    notice: Notice | None = None
    requeue_after_s: float | None = None
