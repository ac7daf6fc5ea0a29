"""What the chapters of the story share: the observation, the story told so far, and a few ways to end it."""

from __future__ import annotations

from dataclasses import dataclass, field

from joulepath_crds import EnergyPlanStatus, JobPlanSpec, Mode, Phase, RankReport, Topology, content_hash, learnt_from
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.observation import Decision, Observation, StoredPlan, TrainingJob
from joulepath_operator.figures.activation import activation
from joulepath_operator.figures.joining import Join, complete_blocks
from joulepath_operator.figures.order import is_told
from joulepath_operator.figures.savings import in_words, measured_savings, outlives
from joulepath_operator.jobs.kinds import kind_of
from joulepath_operator.story.status import CONDITIONS, Story

__all__ = ["Case", "ReadyCase"]


@dataclass(frozen=True, slots=True)
class Case:
    """One observation, being decided."""

    seen: Observation
    story: Story
    join: Join = field(default=complete_blocks, kw_only=True)
    """How blocks of all ranks are put together: what doesn't change from look to look may be kept."""
    bounds: str | None = field(default=None, kw_only=True)
    """What of the user's wishes the EnergyPolicy cuts, in a sentence; None where it is nothing."""
    policy_hash: str | None = field(default=None, kw_only=True)
    """What it leaves of them for the GPUs that the status knows, as the status tells it."""

    @property
    def unchanged(self) -> bool:
        """Whether what is asked for, and what is allowed of it, is what the status speaks of."""
        base = self.story.base
        told_in_words = base.policy_hash is None and base.policy is not None  # by an operator of before
        is_allowed = base.policy == self.bounds if told_in_words else base.policy_hash == self.policy_hash
        return base.observed_generation == self.seen.generation and is_allowed

    @property
    def enforce(self) -> bool:
        return self.seen.spec.mode is Mode.ENFORCE

    @property
    def allowed_slowdown(self) -> float:
        """How much longer than at default clocks an iteration may last, as a fraction."""
        return self.seen.spec.max_slowdown_percent / 100

    @property
    def profiling_slowdown(self) -> float:
        """How much longer an instruction may last for profiling, as a fraction."""
        return self.seen.spec.profiling.max_slowdown_percent / 100

    @property
    def job_kind(self) -> str:
        """Its name, for sentences."""
        return kind_of(self.seen.spec.job).resource.kind

    @property
    def all_plans(self) -> tuple[str, ...]:
        return tuple(plan.name for plan in self.seen.plans)

    def pend(self, reason: str, message: str) -> Decision:
        """Nothing can be done before the user does something; no plan stays."""
        self.story.tell("Injected", False, reason, message)
        self.story.note(straggler=None)
        return Decision(self.story.end(Phase.PENDING, message, progress=reason), delete_plans=self.all_plans)

    def refuse(self, reason: str, message: str, *, condition: str) -> Decision:
        """No plan for this job; the condition is the one that can't come true."""
        if self.story.base.phase in (Phase.PLANNED, Phase.ACTIVE):
            self.story.tell("Active", False, "Withdrawn", "The plan is withdrawn; all GPUs run default clocks.")
        self.story.tell(condition, False, reason, message)
        self.story.tell("Degraded", True, reason, message)
        self.story.note(straggler=None)
        return Decision(self.story.end(Phase.REFUSED, message, carry=CONDITIONS), delete_plans=self.all_plans)

    def measure(self, ranks: tuple[RankReport, ...], spec: JobPlanSpec) -> None:
        """Notes the savings; what was measured stays where its blocks are gone, with an agent that was started anew."""
        measured, old = measured_savings(spec.hash, ranks, join=self.join), self.story.base.measured
        if old is not None and outlives(old, measured):
            measured = old
        self.story.note(measured=measured, savings=in_words(measured))


@dataclass(frozen=True, slots=True)
class ReadyCase(Case):
    """The gang is whole and agrees: what profiling and planning start from. `plan` is the JobPlan of this attempt."""

    job: TrainingJob
    gang: Gang
    topology: Topology
    plan: StoredPlan | None

    @property
    def timed(self) -> bool:
        """Whether the job's own time at default clocks is known, and instruction by instruction where that is told."""
        learnt = set(learnt_from(self.topology.data_parallel, self.topology.tensor_parallel))
        return self.gang.control_time_s > 0 and all(
            is_told(rank) for rank in self.gang.ranks if (rank.coordinates.data, rank.coordinates.tensor) in learnt
        )

    @property
    def lowest_mhz(self) -> float:
        """The lowest clock that profiling may hold."""
        return self.gang.default_clock_mhz / (1 + self.profiling_slowdown)

    def wait_for_timing(self) -> Decision:
        message = "Waiting until every rank has timed a few iterations at default clocks."
        return Decision(self.not_planned("WaitingForTiming", message))

    def not_planned(self, reason: str, message: str) -> EnergyPlanStatus:
        """There is no plan yet for what is asked; one that is in force meanwhile is told so."""
        self.story.tell("Planned", False, reason, message)
        if self.story.base.phase is not Phase.ACTIVE or self.plan is None:
            return self.story.end(Phase.PROFILING, message)
        message += " The plan before stays in force until then."
        return self.story.end(Phase.ACTIVE, message, carry=("Active",))

    def unready(self, plan_hash: str) -> str:
        """How many ranks have a plan ready, and why others don't: `7 of 8 ranks are ready (rank 3: why)`."""
        missing = self._missing(plan_hash)
        why = next((f" (rank {rank.rank}: {rank.reason})" for rank in missing if rank.reason), "")
        return f"{self.gang.world_size - len(missing)} of {self.gang.world_size} ranks are ready{why}"

    def readiness(self, plan_hash: str) -> str:
        """The same for `kubectl get`: `7/8 ranks`."""
        return f"{self.gang.world_size - len(self._missing(plan_hash))}/{self.gang.world_size} ranks"

    def _missing(self, plan_hash: str) -> list[RankReport]:
        return [rank for rank in self.gang.ranks if rank.staged_hash != plan_hash]

    def new_plan(self, spec: JobPlanSpec, inputs: str) -> StoredPlan:
        """Takes the place of the plan of this run that is there, if any."""
        name = f"{self.seen.name[:244]}-{self.job.uid[:8]}"
        old = next((plan for plan in self.seen.plans if plan.name == name), None)
        fitting = spec.fitting()
        hashed = fitting.model_copy(update={"hash": content_hash(fitting)})
        return StoredPlan(name, hashed, inputs, old.version if old else None)

    def activated(self, plan: StoredPlan) -> StoredPlan | None:
        """The plan with its first iteration, once every rank has it staged."""
        if not self.gang.staged(plan.spec.hash):
            return None
        spec = plan.spec.model_copy(update={"activate_at": activation(self.gang)})
        return StoredPlan(plan.name, spec, plan.inputs, plan.version)
