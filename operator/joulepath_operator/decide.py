"""The story of an EnergyPlan: from everything that the cluster holds to what it should hold next.

One pure function, level-triggered: it doesn't ask what happened, only what is. Called again on the same observation,
or by an operator that was started a moment ago, it says the same, and a JobPlan that is in force is left as it is.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from joulepath_crds import (
    Blocks,
    EnergyPlanStatus,
    JobPlanSpec,
    Mode,
    Phase,
    PlanSummary,
    Purpose,
    RankReport,
    StagePlan,
    Topology,
    content_hash,
)
from joulepath_operator import injection
from joulepath_operator.demands import objection
from joulepath_operator.gang import Gang, RefusalError
from joulepath_operator.observation import Decision, Job, Observation, StoredPlan, StoredProfile
from joulepath_operator.planning import PlanRefusal, PlanRequest, PlanResult
from joulepath_operator.profiling import build_profile, measure_delays
from joulepath_operator.savings import NOT_YET_KNOWN, in_words, measured_savings
from joulepath_operator.story import Story
from joulepath_operator.sweep import LEAST_CLOCKS, choose_clocks, is_over, label_kind, make_sweep, measured_clocks

FINAL = frozenset(
    {"GuardTripped", "ModelMismatch", "NotPlannable", "PlannerTimeout", "SweepIncomplete", "TooFewClocks"}
)
"""Refusals that hold until the job restarts or the EnergyPlan's spec changes."""
_UNDER_WAY = frozenset({Phase.PROFILING, Phase.PLANNED, Phase.ACTIVE})


def decide(observation: Observation) -> Decision:
    """What to write for this EnergyPlan, given all that is known of it."""
    return _Decider(observation).decide()


@dataclass(slots=True)
class _Ready:
    """A gang that is whole and agrees: what planning starts from."""

    job: Job
    gang: Gang
    topology: Topology
    plan: StoredPlan | None


class _Decider:
    def __init__(self, observation: Observation) -> None:
        self._seen = observation
        job, status = observation.job, observation.status
        same_run = job is None or status.job_uid in (None, job.uid)
        base = status if same_run else EnergyPlanStatus()
        if job is not None:
            base = base.model_copy(update={"job_uid": job.uid})
        self._story = Story(base, status.conditions, observation.now, observation.generation)

    def decide(self) -> Decision:
        seen, job = self._seen, self._seen.job
        if found := objection(seen.spec):
            return self._refuse(*found, condition="Planned")
        if job is None:
            return self._without_job()
        if job.annotation is None:
            return self._withdraw_pending("NotAnnotated", injection.how_to_annotate(seen, job))
        if job.annotation != seen.name:
            message = (
                f"PyTorchJob {job.name} is annotated for EnergyPlan {job.annotation!r}, not for {seen.name!r}. Change "
                "the annotation in its manifest, or delete this EnergyPlan."
            )
            return self._refuse("AnnotationMismatch", message, condition="Injected")
        if job.finished:
            return self._completed(f"PyTorchJob {job.name} {'succeeded' if job.finished == 'Succeeded' else 'failed'}.")
        base = self._story.base
        if base.phase is Phase.REFUSED and base.observed_generation == seen.generation and _is_final(base):
            return Decision(self._story.keep(), delete_plans=self._all_plans())
        if job.suspended:
            return self._withdraw_pending("Suspended", f"PyTorchJob {job.name} is suspended.")
        gang = Gang.of(seen.nodes)
        if gang is None or not gang.complete:
            return self._incomplete(job, gang)
        return self._complete(job, gang)

    # Before the gang is whole

    def _without_job(self) -> Decision:
        base, name = self._story.base, self._seen.spec.job.name
        if base.job_uid and base.phase in _UNDER_WAY | {Phase.COMPLETED}:
            return self._completed(f"PyTorchJob {name} was deleted.")
        message = f"There is no PyTorchJob {name} in namespace {self._seen.namespace} yet. Apply its manifest."
        return self._withdraw_pending("NoJob", message)

    def _withdraw_pending(self, reason: str, message: str) -> Decision:
        self._story.tell("Injected", False, reason, message)
        return Decision(self._story.end(Phase.PENDING, message), delete_plans=self._all_plans())

    def _incomplete(self, job: Job, gang: Gang | None) -> Decision:
        """A plan of this very attempt stays: a node that is silent for a moment is no reason to withdraw it."""
        base = self._story.base
        outdated = self._outdated(job, gang.attempt if gang else None)
        plan_stays = any(plan.name not in outdated for plan in self._seen.plans)
        reason, message = injection.explain(self._seen, job, gang)
        if plan_stays and base.phase in _UNDER_WAY:
            self._story.tell("Degraded", True, reason, message)
            return Decision(self._story.keep(message=f"Degraded: {message}"), delete_plans=outdated)
        self._story.tell("Injected", False, reason, message)
        return Decision(self._story.end(Phase.PENDING, message), delete_plans=outdated)

    # The gang is whole

    def _complete(self, job: Job, gang: Gang) -> Decision:
        outdated = self._outdated(job, gang.attempt)
        plan = next((one for one in self._seen.plans if one.name not in outdated), None)
        try:
            topology = gang.topology()
        except RefusalError as refusal:
            return self._refuse(refusal.reason, refusal.message, condition="Profiled")
        refused = gang.refused_ranks()
        if refused and plan is not None:  # without a plan, it is the echo of one that is withdrawn
            return self._refused_by_node(refused[0])
        self._story.note(topology=topology)
        self._story.tell("Injected", True, "AllRanksReport", f"All {gang.world_size} ranks report.")
        if not gang.ordered:
            message = "All ranks report; waiting for the first whole iteration."
            self._story.tell("Profiled", False, "WaitingForIteration", message)
            return Decision(self._story.end(Phase.PENDING, message), delete_plans=outdated)
        ready = _Ready(job, gang, topology, plan)
        decision = self._profiled(ready)
        written = {decision.write_plan.name} if decision.write_plan else set()
        deletions = {*decision.delete_plans, *outdated} - written
        return Decision(
            decision.status,
            decision.write_profile,
            tuple(sorted(deletions)),
            decision.write_plan,
            decision.ask_planner,
            decision.requeue_after_s,
        )

    def _refused_by_node(self, rank: RankReport) -> Decision:
        """The agent's reason starts with a word in CamelCase, such as GuardTripped or OrderMismatch."""
        word, colon, _ = rank.reason.partition(":")
        message = (
            f"The agent of rank {rank.rank} (pod {rank.pod}) refuses: {rank.reason or 'it gives no reason'}. All GPUs "
            "run default clocks. Restart the job or change the EnergyPlan's spec to try again."
        )
        return self._refuse(word if colon and word.isalpha() else "RankRefused", message, condition="Active")

    def _profiled(self, ready: _Ready) -> Decision:
        """From a whole gang to a profile: stored, reused, or measured now."""
        own, other = self._profiles(ready)
        if own is not None:
            self._story.tell("Profiled", True, "Measured", f"Measured in this run: EnergyProfile {own.name}.")
            return self._planned(ready, own, is_own=True)
        if ready.plan is not None and ready.plan.spec.purpose is Purpose.SWEEP and self._enforce:
            return self._sweeping(ready, ready.plan)
        if other is not None:
            message = f"EnergyProfile {other.name} of an earlier run with the same topology is used again."
            self._story.tell("Profiled", True, "Reused", message)
            return self._planned(ready, other, is_own=False)
        if not self._enforce:
            message = "Observe sets no clocks, hence no sweep; the comparison of default with default clocks goes on."
            self._story.tell("Profiled", False, "ObserveOnly", message)
            return self._observed(ready)
        return self._begin_sweep(ready)

    def _begin_sweep(self, ready: _Ready) -> Decision:
        profiling, default = self._seen.spec.profiling, ready.topology.default_clock_mhz
        clocks = choose_clocks(ready.gang.supported_clocks_mhz(), default, profiling.clocks)
        if len(clocks) < LEAST_CLOCKS:
            message = (
                f"The GPUs have {len(clocks)} clocks in common from {default} MHz down; at least {LEAST_CLOCKS} are "
                "needed to choose from. Check supportedClocksMHz in kubectl get nodereports -o yaml."
            )
            return self._refuse("TooFewClocks", message, condition="Profiled")
        spec = JobPlanSpec(
            energy_plan=self._seen.name,
            job=ready.job.name,
            job_uid=ready.job.uid,
            attempt=ready.gang.attempt,
            purpose=Purpose.SWEEP,
            hash="",
            sweep=make_sweep(clocks, profiling.iterations_per_clock, ready.job.uid),
            default_clock_mhz=default,
            control_iteration_time_s=ready.gang.control_time_s,
        )
        plan = self._new_plan(ready, spec, inputs="sweep")
        return Decision(self._tell_sweep(ready, plan.spec), write_plan=plan)

    def _sweeping(self, ready: _Ready, plan: StoredPlan) -> Decision:
        if plan.spec.activate_at is None:
            return Decision(self._tell_sweep(ready, plan.spec), write_plan=_activated(plan, ready.gang))
        assert plan.spec.sweep is not None
        measured = measured_clocks(ready.gang.ranks, plan.spec.sweep)
        everything = set(measured) == set(plan.spec.sweep.clocks_mhz)
        over = is_over(plan.spec, ready.gang.ranks)
        if not everything and not over:
            return Decision(self._tell_sweep(ready, plan.spec))
        if len(measured) < LEAST_CLOCKS or 0 not in measured:
            message = (
                f"The sweep is over, but only {len(measured)} clocks were measured on all ranks; at least "
                f"{LEAST_CLOCKS}, default clocks among them, are needed. Raise spec.profiling.iterationsPerClock."
            )
            return self._refuse("SweepIncomplete", message, condition="Profiled")
        if not _timed(ready.gang):
            return self._wait_for_timing()
        delays = measure_delays(ready.gang, ready.topology)
        spec = build_profile(ready.gang, ready.topology, measured, delays, ready.job.name)
        name = _profile_name(ready.job.name, ready.topology)
        old = next((one for one in self._seen.profiles if one.name == name), None)
        profile = StoredProfile(name, spec, ready.job.uid, old.version if old else None)
        self._story.tell("Profiled", True, "Measured", f"Measured in this run: EnergyProfile {name}.")
        decision = self._planned(ready, profile, is_own=True)
        return Decision(decision.status, profile, decision.delete_plans, decision.write_plan, decision.ask_planner)

    def _tell_sweep(self, ready: _Ready, spec: JobPlanSpec) -> EnergyPlanStatus:
        assert spec.sweep is not None
        total = len(spec.sweep.clocks_mhz)
        if spec.activate_at is None:
            staged = sum(rank.staged_hash == spec.hash for rank in ready.gang.ranks)
            message = f"Sweep of {total} blocks prepared; {staged} of {ready.gang.world_size} ranks have it ready."
        else:
            at = min(rank.iteration for rank in ready.gang.ranks)
            block = max(0, min(total, (at - spec.activate_at) // spec.sweep.iterations_per_block + 1))
            message = (
                f"Measuring clocks, block {block} of {total}."
                if block
                else (f"The sweep begins at iteration {spec.activate_at}; the job is at {at}.")
            )
        self._story.tell("Profiled", False, "Sweeping", message)
        return self._story.end(Phase.PROFILING, message)

    # From a profile to a plan in force

    def _planned(self, ready: _Ready, profile: StoredProfile, *, is_own: bool) -> Decision:
        self._story.note(profile=profile.name)
        inputs = self._inputs(ready, profile)
        base, plan, answer = self._story.base, ready.plan, self._seen.planned
        if plan is not None and plan.inputs == inputs and base.plan is not None and base.plan.hash == plan.spec.hash:
            return self._follow(ready, plan)
        if not _timed(ready.gang):
            return self._wait_for_timing()
        if answer is None:
            message = "Profile complete; computing the plan."
            self._story.tell("Planned", False, "Computing", message)
            phase = base.phase if base.phase is Phase.ACTIVE else Phase.PROFILING
            return Decision(self._story.end(phase, message), ask_planner=self._request(ready, profile))
        if isinstance(answer, PlanRefusal):
            if not is_own and self._enforce and answer.reason in ("ModelMismatch", "NotPlannable"):
                return self._begin_sweep(ready)  # the stored profile is of another time; measure again
            return self._refuse(answer.reason, answer.message, condition="Planned")
        return self._deliver(ready, profile, answer, inputs)

    def _deliver(self, ready: _Ready, profile: StoredProfile, result: PlanResult, inputs: str) -> Decision:
        stages = result.stages if self._enforce else _at_default(result.stages, profile)
        plan = self._new_plan(
            ready,
            self._enforcing(ready, stages, result.plan_time_s if self._enforce else result.control_time_s),
            inputs,
        )
        summary = PlanSummary(
            hash=plan.spec.hash,
            granularity=result.granularity,
            t_min_s=result.t_min_s,
            iteration_time_s=result.iteration_time_s,
            baseline_j=result.baseline_j,
            energy_j=result.energy_j,
            lower_bound_j=result.lower_bound_j,
            predicted_savings=result.predicted_savings,
            bound_savings=result.bound_savings,
        )
        self._story.note(plan=summary, frontier=result.frontier)
        return Decision(self._tell_new(ready, summary), write_plan=plan)

    def _observed(self, ready: _Ready) -> Decision:
        """Observe without a profile: default clocks against default clocks."""
        inputs = self._inputs(ready, None)
        if ready.plan is not None and ready.plan.inputs == inputs:
            return self._follow(ready, ready.plan)
        if not _timed(ready.gang):
            return self._wait_for_timing()
        spec = self._enforcing(ready, _as_seen(ready.gang), ready.gang.control_time_s)
        return Decision(self._tell_new(ready, None), write_plan=self._new_plan(ready, spec, inputs))

    def _enforcing(self, ready: _Ready, stages: tuple[StagePlan, ...], plan_time_s: float) -> JobPlanSpec:
        measurement = self._seen.spec.measurement
        return JobPlanSpec(
            energy_plan=self._seen.name,
            job=ready.job.name,
            job_uid=ready.job.uid,
            attempt=ready.gang.attempt,
            purpose=Purpose.ENFORCE,
            hash="",
            blocks=Blocks(iterations=measurement.block_iterations, pairs=measurement.pairs),
            stages=stages,
            default_clock_mhz=ready.topology.default_clock_mhz,
            control_iteration_time_s=ready.gang.control_time_s,
            plan_iteration_time_s=plan_time_s,
        )

    def _tell_new(self, ready: _Ready, summary: PlanSummary | None) -> EnergyPlanStatus:
        self._story.note(measured=None, savings=NOT_YET_KNOWN)
        self._tell_planned(summary)
        message = f"Plan sent; none of {ready.gang.world_size} ranks has it ready yet."
        self._story.tell("Active", False, "Staging", message)
        return self._story.end(Phase.PLANNED, message)

    def _tell_planned(self, summary: PlanSummary | None) -> None:
        if summary is None:
            self._story.tell("Planned", True, "ObserveOnly", "Every clock is the default one.")
            return
        watch = "" if self._enforce else " (Observe: it is not carried out)"
        self._story.tell(
            "Planned",
            True,
            "Planned",
            f"Granularity {summary.granularity.value}: predicted to save {summary.predicted_savings:.1%} of energy, "
            f"at most {summary.bound_savings:.1%} are possible{watch}.",
        )

    def _follow(self, ready: _Ready, plan: StoredPlan) -> Decision:
        """A plan that is as it should be: see it staged, activated and applied, and measure."""
        base, gang, spec = self._story.base, ready.gang, plan.spec
        self._tell_planned(base.plan)
        if spec.activate_at is None:
            staged = sum(rank.staged_hash == spec.hash for rank in gang.ranks)
            message = f"{staged} of {gang.world_size} ranks have the plan ready."
            self._story.tell("Active", False, "Staging", message)
            return Decision(self._story.end(Phase.PLANNED, message), write_plan=_activated(plan, gang))
        waiting = [rank for rank in gang.ranks if rank.applied_hash != spec.hash]
        if waiting and base.phase is not Phase.ACTIVE:
            at = min(rank.iteration for rank in gang.ranks)
            message = f"The plan begins at iteration {spec.activate_at}; the job is at {at}."
            self._story.tell("Active", False, "Waiting", message)
            return Decision(self._story.end(Phase.PLANNED, message))
        self._story.tell("Active", True, "Applied", f"In force since iteration {spec.activate_at}.")
        if waiting:
            reasons = sorted({rank.reason for rank in waiting if rank.reason})
            message = (
                f"{len(waiting)} of {gang.world_size} ranks run default clocks"
                f"{': ' + '; '.join(reasons[:3]) if reasons else ''}. They join at the next block."
            )
            self._story.tell("Degraded", True, "RanksAtDefault", message)
        self._measure(gang.ranks, spec)
        return Decision(self._story.end(Phase.ACTIVE, self._tell_active(spec)))

    def _measure(self, ranks: tuple[RankReport, ...], spec: JobPlanSpec) -> None:
        """Keeps what was measured where blocks are gone, with an agent that was started anew."""
        measured, old = measured_savings(spec.hash, ranks), self._story.base.measured
        if old is not None and (measured is None or measured.pairs < old.pairs):
            measured = old
        self._story.note(measured=measured, savings=in_words(measured))

    def _tell_active(self, spec: JobPlanSpec) -> str:
        status = self._story.keep()
        what = "The plan is in force" if self._enforce else "Observing, no clock is set"
        if status.measured is None:
            return f"{what}; savings are known after four pairs of blocks."
        total = spec.blocks.pairs if spec.blocks else 0
        slowdown = status.measured.slowdown.mean
        return (
            f"{what}: {status.savings} of energy saved, iterations {slowdown:+.2%} longer "
            f"({status.measured.pairs} of {total} pairs measured)."
        )

    # Ends

    def _completed(self, what: str) -> Decision:
        base = self._story.base
        if base.phase is Phase.REFUSED:
            return Decision(self._story.keep(), delete_plans=self._all_plans())
        if base.phase is Phase.COMPLETED:
            return Decision(self._story.keep(), delete_plans=self._all_plans())
        gang = Gang.of(self._seen.nodes)
        for plan in self._seen.plans:
            if gang is not None and plan.spec.job_uid == base.job_uid and base.phase is Phase.ACTIVE:
                self._measure(gang.ranks, plan.spec)
        status = self._story.keep()
        savings = f" Measured savings: {status.savings}." if status.measured else " Savings were not measured."
        for one in base.conditions:
            if one.type not in ("Active", "Degraded"):
                self._story.tell(one.type, one.status == "True", one.reason, one.message)
        self._story.tell("Active", False, "JobFinished", what)
        return Decision(self._story.end(Phase.COMPLETED, what + savings), delete_plans=self._all_plans())

    def _refuse(self, reason: str, message: str, *, condition: str) -> Decision:
        self._story.tell(condition, False, reason, message)
        self._story.tell("Degraded", True, reason, message)
        return Decision(self._story.end(Phase.REFUSED, message), delete_plans=self._all_plans())

    def _wait_for_timing(self) -> Decision:
        message = "Waiting for measured iterations at default clocks."
        self._story.tell("Planned", False, "WaitingForTiming", message)
        return Decision(self._story.end(Phase.PROFILING, message))

    # Small facts

    @property
    def _enforce(self) -> bool:
        return self._seen.spec.mode is Mode.ENFORCE

    def _all_plans(self) -> tuple[str, ...]:
        return tuple(plan.name for plan in self._seen.plans)

    def _outdated(self, job: Job, attempt: int | None) -> tuple[str, ...]:
        """JobPlans of another run, or of another attempt where the attempt is known."""
        return tuple(
            plan.name
            for plan in self._seen.plans
            if plan.spec.job_uid != job.uid or (attempt is not None and plan.spec.attempt != attempt)
        )

    def _profiles(self, ready: _Ready) -> tuple[StoredProfile | None, StoredProfile | None]:
        """The profile measured in this run, and the best of an earlier one."""
        equal = [one for one in self._seen.profiles if one.spec.topology == ready.topology]
        own = next((one for one in equal if one.job_uid == ready.job.uid), None)
        others = sorted(equal, key=lambda one: (one.spec.job != ready.job.name, one.name))
        return own, others[0] if others and self._seen.spec.profiling.reuse else None

    def _inputs(self, ready: _Ready, profile: StoredProfile | None) -> str:
        spec = self._seen.spec
        body = [
            ready.job.uid,
            ready.gang.attempt,
            profile and [profile.name, profile.spec.to_api()],
            spec.mode,
            spec.max_slowdown_percent,
            spec.granularity,
            spec.measurement.to_api(),
        ]
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]

    def _request(self, ready: _Ready, profile: StoredProfile) -> PlanRequest:
        ranks = ready.gang.pipeline()
        return PlanRequest(
            profile=profile.spec,
            orders=tuple(rank.order for rank in ranks),
            first_stages=tuple(rank.stages[0] for rank in ranks),
            delays=measure_delays(ready.gang, ready.topology),
            control_time_s=ready.gang.control_time_s,
            max_slowdown=self._seen.spec.max_slowdown_percent / 100,
            granularity=self._seen.spec.granularity,
            lag=ready.gang.lag(),
            supported_clocks_mhz=ready.gang.supported_clocks_mhz(),
        )

    def _new_plan(self, ready: _Ready, spec: JobPlanSpec, inputs: str) -> StoredPlan:
        """Takes the place of the plan of this run that is there, if any."""
        name = f"{self._seen.name[:244]}-{ready.job.uid[:8]}"
        old = next((plan for plan in self._seen.plans if plan.name == name), None)
        hashed = spec.model_copy(update={"hash": content_hash(spec)})
        return StoredPlan(name, hashed, inputs, old.version if old else None)


def _activated(plan: StoredPlan, gang: Gang) -> StoredPlan | None:
    """The plan with its first iteration, once every rank has it staged."""
    if not gang.staged(plan.spec.hash):
        return None
    spec = plan.spec.model_copy(update={"activate_at": gang.activation()})
    return StoredPlan(plan.name, spec, plan.inputs, plan.version)


def _timed(gang: Gang) -> bool:
    """Whether the job's own time at default clocks is known, instruction by instruction."""
    return gang.control_time_s > 0 and all(rank.timeline for rank in gang.ranks)


def _is_final(status: EnergyPlanStatus) -> bool:
    """What a node refused would be sent to it again; what the planner refused, refused again."""
    return any(one.reason in FINAL or (one.type == "Active" and one.status == "False") for one in status.conditions)


def _profile_name(job: str, topology: Topology) -> str:
    digest = hashlib.sha256(json.dumps(topology.to_api(), sort_keys=True).encode()).hexdigest()[:8]
    return f"{job[:244]}-{digest}"


def _at_default(stages: tuple[StagePlan, ...], profile: StoredProfile) -> tuple[StagePlan, ...]:
    """The same instructions at default clocks."""
    top = {
        (stage.stage, kind.kind): max(kind.points, key=lambda point: point.clock_mhz).time_s
        for stage in profile.spec.stages
        for kind in stage.kinds
    }
    return tuple(
        StagePlan(
            stage=one.stage,
            order=one.order,
            clocks_mhz=(0,) * len(one.order),
            durations_s=tuple(top[one.stage, label_kind(label)] for label in one.order),
        )
        for one in stages
    )


def _as_seen(gang: Gang) -> tuple[StagePlan, ...]:
    """The instructions as they run, at default clocks."""
    stages = []
    for rank in gang.pipeline():
        for stage in rank.stages:
            seen = {one.instruction.rpartition(":")[2]: one for one in rank.timeline if one.stage == stage}
            mine = [
                label.rpartition(":")[2]
                for label in rank.order
                if int(label.partition(":")[0] if ":" in label else rank.stages[0]) == stage
            ]
            order = tuple(label for label in mine if label in seen)
            stages.append(
                StagePlan(
                    stage=stage,
                    order=order,
                    clocks_mhz=(0,) * len(order),
                    durations_s=tuple(seen[label].end_s - seen[label].begin_s for label in order),
                )
            )
    return tuple(sorted(stages, key=lambda one: one.stage))
