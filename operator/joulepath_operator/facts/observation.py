"""What a decision is made from, and what it is: plain values on both sides.

An `Observation` is all that the cluster holds about one EnergyPlan at one moment. A `Decision` is what the cluster
should hold next. Neither knows how to read or write anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from joulepath_crds import (
    EnergyPlanSpec,
    EnergyPlanStatus,
    EnergyPolicySpec,
    EnergyProfileSpec,
    GpuReport,
    JobName,
    JobPlanSpec,
    JobReport,
)
from joulepath_operator.facts.absence import Absence, Way
from joulepath_operator.facts.admission import Admission
from joulepath_operator.facts.request import Answer, Request

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
    queue: str = ""
    """Of Kueue, which suspends the job and resumes it; empty where it is in none."""
    annotated_at: str | None = None
    """When it had the annotation at the latest, in RFC 3339, as far as the API server tells."""
    straggler: str | None = None
    """What its annotation says of one, as it is written."""
    made_by: JobName | None = None
    """The job that has made it, and is the one to plan for."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of the job: its node, why its training doesn't run yet, and why it has no trainer, if so."""

    name: str
    node: str | None = None
    waiting: str | None = None
    absence: Absence | None = None


@dataclass(frozen=True, slots=True)
class NodeAgent:
    """The agent on a node: its pod as NAMESPACE/NAME, None if there is none, and whether the node has a NodeReport."""

    node: str
    pod: str | None
    ready: bool
    reports: bool
    refused: str = ""
    """Why it touches no GPU of the node, if it is so with all."""


@dataclass(frozen=True, slots=True)
class NodeJob:
    """What one node says of the job; `age_s` is how long ago that arrived, on the operator's own clock."""

    node: str
    report: JobReport
    gpus: tuple[GpuReport, ...]
    age_s: float = 0.0

    @property
    def own_gpus(self) -> tuple[GpuReport, ...]:
        """Those that the job's ranks there run on: of others' a node has nothing to tell."""
        own = {rank.gpu_uuid for rank in self.report.ranks}
        return tuple(gpu for gpu in self.gpus if gpu.uuid in own)


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
    policy: EnergyPolicySpec = field(default_factory=EnergyPolicySpec)
    """Of the cluster; an empty one where there is none."""
    unreadable: str = ""
    """Why not all of this can be read, and the rest may be wrong; empty where it can."""
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    """Looked up only where the policy goes by them."""
    way: Way = Way.VOLUMES
    """By which pods get the trainer."""
    admission: Admission | None = None
    """What the namespace says of injection; it matters to volumes only."""
    pods: tuple[Pod, ...] = ()
    """The pods of the job; looked up only while ranks are missing."""
    denied: str = ""
    """Why the API server refused one, where there are none."""
    agents: tuple[NodeAgent, ...] = ()
    """The agents of some nodes whose pods run and report no rank."""
    asked: Request | None = None
    """What the planner was asked last and still computes or has answered, if anything."""
    planned: Answer | None = None
    """Its answer; None while it computes."""


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
    ask_planner: Request | None = None
    notice: Notice | None = None
    requeue_after_s: float | None = None
