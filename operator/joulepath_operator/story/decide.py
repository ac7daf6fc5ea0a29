"""The story of an EnergyPlan: from everything that the cluster holds to what it should hold next.

One pure function, level-triggered: it doesn't ask what happened, only what is. Called again on the same observation,
or by an operator that was started a moment ago, it says the same, and a JobPlan that is in force is left as it is.
Its chapters: until every rank reports (here), `sweeping`, `delivery`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from joulepath_crds import ANNOTATION, EnergyPlanStatus, JobPlanSpec, Phase, Purpose, RankReport
from joulepath_operator.facts import policy
from joulepath_operator.facts.absence import Lack
from joulepath_operator.facts.gang import Gang, RefusalError, rivals
from joulepath_operator.facts.observation import Decision, Notice, Observation, StoredPlan, TrainingJob
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.figures.joining import Join, complete_blocks
from joulepath_operator.story import delivery, gathering, reuse, sweeping
from joulepath_operator.story.case import Case, ReadyCase
from joulepath_operator.story.objections import objection
from joulepath_operator.story.outcomes import stragglers, withdrawal
from joulepath_operator.story.status import Story

__all__ = ["decide"]

_LOOK_AGAIN_S: Final = 15.0
"""While ranks are missing: no watch tells of the job's pods and of agents."""
_LASTING_S: Final = 20.0
"""Longer than a job takes to end once its processes have."""
_LONG_S: Final = 120.0
"""So long a training may take to come to its first step: what else may be amiss is told after that."""
_UNDER_WAY: Final = frozenset({Phase.PROFILING, Phase.PLANNED, Phase.ACTIVE, Phase.IDLE})
_UNREADABLE: Final = "MayNotRead"
_UNTOLD: Final = "IterationsOnly"
_NO_BACKWARD: Final = (
    "Of this job only iterations are seen, no forward and no backward: it goes back by another way than "
    "torch.autograd.backward, such as a CUDA graph of whole iterations. No plan can be made; all GPUs run default "
    "clocks. docs/frameworks.md tells what is seen of which training."
)


def decide(seen: Observation, join: Join = complete_blocks) -> Decision:
    """What to write for this EnergyPlan, given all that is known of it. join: as a Case has it."""
    job, status = seen.job, seen.status
    if seen.unreadable:
        return _undecided(seen)
    same_run = job is None or status.job_uid in (None, job.uid)
    base = status if same_run else EnergyPlanStatus()
    if job is not None:
        base = base.model_copy(update={"job_uid": job.uid})
    bounds, model = policy.in_words(seen.spec, seen.policy), base.topology.gpu_model if base.topology else ""
    left = policy.left_hash(seen.spec, seen.policy, model)
    seen = policy.bounded(seen)
    story = Story(base, status.conditions, seen.now, seen.generation)
    case = Case(seen, story, join=join, bounds=bounds, policy_hash=left)
    story.note(policy=bounds, policy_hash=left)
    if found := objection(seen.spec):
        return case.refuse(*found, condition="Planned")
    return _without_job(case) if job is None else _with_job(case, job)


def _undecided(seen: Observation) -> Decision:
    """All stays as it is; who has no plan, or has one in force, is told why."""
    status = seen.status
    story = Story(status, status.conditions, seen.now, status.observed_generation or 0)
    story.tell("Degraded", True, _UNREADABLE, seen.unreadable)
    if status.phase in (Phase.PROFILING, Phase.PLANNED, Phase.ACTIVE):
        return Decision(story.keep(message=f"Degraded: {seen.unreadable}"))
    if status.phase is Phase.PENDING:
        return Decision(story.end(Phase.PENDING, seen.unreadable, progress=_UNREADABLE))
    return Decision(status)


def _without_job(case: Case) -> Decision:
    base, name = case.story.base, case.seen.spec.job.name
    if base.job_uid and base.phase in _UNDER_WAY | {Phase.COMPLETED}:
        return _complete(case, f"{case.job_kind} {name} was deleted.")
    return case.pend(
        "NoJob",
        f"There is no {case.job_kind} {name} in namespace {case.seen.namespace} yet. Apply its manifest, with the "
        f"annotation {ANNOTATION}: {case.seen.name}",
    )


def _with_job(case: Case, job: TrainingJob) -> Decision:
    seen = case.seen
    if job.made_by is not None:
        message = (
            f"{case.job_kind} {job.name} was made by {job.made_by}, so that is the job to plan for: annotate it with "
            f"{ANNOTATION}: NAME, and apply an EnergyPlan of that name for it (spec.job) in the place of this one."
        )
        return case.pend("MadeByAnotherJob", message)
    if job.annotation is None:
        return case.pend("NotAnnotated", gathering.how_to_annotate(seen, job))
    if job.annotation != seen.name:
        message = (
            f"{case.job_kind} {job.name} is annotated for EnergyPlan {job.annotation!r}, not for {seen.name!r}. Change "
            "the annotation in its manifest, or delete this EnergyPlan."
        )
        return case.refuse(Refusal.ANNOTATION_MISMATCH, message, condition="Injected")
    if job.finished:
        end = "succeeded" if job.finished == "Succeeded" else "failed"
        return _complete(case, f"{case.job_kind} {job.name} {end}.")
    if job.suspended:  # what is refused now needn't be where it is resumed
        return case.pend(*gathering.suspension(seen, job))
    if (refused := _refused(case)) is not None:
        return refused
    if (pods := rivals(seen.nodes)) is not None:
        return case.pend(*gathering.rivalry(seen, job, pods))
    gang = Gang.of(seen.nodes)
    return _with_all_ranks(case, job, gang) if gang and gang.complete else _with_some_ranks(case, job, gang)


def _refused(case: Case) -> Decision | None:
    """What is refused whatever ranks say: by the cluster's policy, or for good."""
    base = case.story.base
    if (why := policy.barred(case.seen)) is not None:
        return case.refuse(Refusal.NOT_ALLOWED, why, condition="Planned")
    if base.phase is Phase.REFUSED and case.unchanged and _is_final(base):
        return Decision(case.story.keep(), delete_plans=case.all_plans)
    return None


def _with_some_ranks(case: Case, job: TrainingJob, gang: Gang | None) -> Decision:
    """A plan of this very attempt stays: a node that is silent for a moment is no reason to withdraw it."""
    base, outdated = case.story.base, _outdated(case, job, gang.attempt if gang else None)
    lasts = (case.story.lasted_s("Injected", "False") or 0) >= _LONG_S
    reason, message = gathering.explain(case.seen, job, gang, lasts=lasts)
    if not case.unchanged:
        outdated = case.all_plans  # made for another spec, and what this one asks for can't be planned now
    freed = _freed(case, outdated, gang)
    idle = base.phase is Phase.IDLE and case.unchanged
    if idle or (set(case.all_plans) - set(outdated) and base.phase in _UNDER_WAY):
        if gang is None and base.phase is Phase.ACTIVE:
            silence = "No rank reports. A GPU whose agent or training process is gone runs default clocks."
            case.story.tell("Active", False, reason, silence)
        return _degraded(case, reason, message, outdated, freed)
    case.story.tell("Injected", False, reason, message)
    return Decision(
        case.story.end(Phase.PENDING, message, progress=reason),
        delete_plans=outdated,
        write_plan=freed[0] if freed is not None else None,
        notice=_notice(case, reason, message),
        requeue_after_s=_LOOK_AGAIN_S,
    )


def _notice(case: Case, reason: str, message: str) -> Notice | None:
    """An Event where it has come to be known why a pod has no trainer."""
    known = {one.reason for one in case.seen.status.conditions if one.type == "Injected"}
    return Notice(reason, message) if reason in set(Lack) - known else None


def _degraded(
    case: Case, reason: str, message: str, outdated: tuple[str, ...], freed: tuple[StoredPlan, Notice] | None
) -> Decision:
    """All stays as it is, but for what is amiss once it lasts: a job's ranks end before the job is said to have. Where
    nobody is to wait for a straggler any more, the plan as it was begins once all ranks report."""
    story = case.story
    lasts = story.lasted_s("Degraded", "True") is not None or (story.lasted_s("Degraded", "Unknown") or 0) >= _LASTING_S
    story.tell("Degraded", lasts or None, reason, message)
    changes: dict[str, Any] = {"message": f"Degraded: {message}"} if lasts else {}
    plan, notice = freed or (None, None)
    if notice is not None:
        story.tell("Active", False, notice.reason, notice.message)
        changes |= {"phase": Phase.PLANNED, "message": notice.message, "progress": None}
    again_s = _LOOK_AGAIN_S if lasts else _LASTING_S
    return Decision(
        story.keep(**changes), delete_plans=outdated, write_plan=plan, notice=notice, requeue_after_s=again_s
    )


def _with_all_ranks(case: Case, job: TrainingJob, gang: Gang) -> Decision:
    outdated = _outdated(case, job, gang.attempt)
    plan = next((one for one in case.seen.plans if one.name not in outdated), None)
    try:
        topology = gang.topology()
    except RefusalError as refusal:
        return case.refuse(refusal.reason, refusal.message, condition="Profiled")
    if plan is not None:  # without a plan, it is the echo of one that is withdrawn
        refused = [rank for rank in gang.refused_ranks() if not stragglers.is_refused_for_one(case, plan, rank)]
        if refused:
            return _refused_by_node(case, refused[0], plan)
    if case.story.base.topology not in (None, topology):  # the job trains another pipeline than it did
        case.story.note(plan=None, predicted=None, frontier=(), measured=None, savings=None, setback=None)
    case.story.note(topology=topology)
    case.story.tell("Injected", True, "AllRanksReport", f"All {gang.world_size} ranks report.")
    if not gang.ordered:
        if topology.schedule == _UNTOLD:
            return case.refuse(Refusal.WORK_UNSEEN, _NO_BACKWARD, condition="Profiled")
        message = gathering.without_order(gang)
        phase = case.story.base.phase  # an agent was started anew:
        if phase is Phase.IDLE or (plan is not None and phase in _UNDER_WAY):
            return _degraded(case, "WaitingForIteration", message, outdated, _freed(case, outdated, gang))
        case.story.tell("Profiled", False, "WaitingForIteration", message)
        return Decision(case.story.end(Phase.PENDING, message, progress="WaitingForIteration"), delete_plans=outdated)
    ready = ReadyCase(
        case.seen,
        case.story,
        job,
        gang,
        topology,
        plan,
        join=case.join,
        bounds=case.bounds,
        policy_hash=case.policy_hash,
    )
    decision = _rest(ready) if case.seen.policy.paused else _with_gang(ready)
    written = decision.write_plan.name if decision.write_plan else None
    withdrawn = tuple(name for name in outdated if name != written)
    return replace(decision, delete_plans=decision.delete_plans or withdrawn)


def _rest(case: ReadyCase) -> Decision:
    """Agents have let go of all clocks by themselves. What is planned stays, and is carried out again afterwards; a
    round of a sweep from its begin."""
    if case.story.base.phase is Phase.IDLE and case.unchanged:
        return Decision(case.story.keep())  # there is nothing to pause, and what it offers would be computed anew
    message = f"{case.seen.policy.why_paused}. All GPUs run default clocks until that is over; the job trains on."
    case.story.tell("Active", False, "Paused", message)
    is_planned = case.plan is not None and case.plan.spec.purpose is Purpose.ENFORCE
    phase = Phase.PLANNED if is_planned else Phase.PROFILING
    status = case.story.end(phase, message, progress="paused", carry=("Profiled", "Planned"))
    return Decision(status, write_plan=sweeping.interrupted(case, case.plan) if case.plan else None)


def _with_gang(case: ReadyCase) -> Decision:
    """From a whole gang to a profile: stored, reused, or measured now."""
    if (own := reuse.own_profile(case)) is not None:
        reuse.tell(case, own)
        return delivery.on_profile(case, own)
    if case.plan is not None and case.plan.spec.purpose is Purpose.SWEEP and case.enforce:
        found = sweeping.go_on(case, case.plan)
        if isinstance(found, Decision):
            return found
        reuse.tell(case, found)
        return replace(delivery.on_profile(case, found), write_profile=found)
    if case.enforce:
        return sweeping.begin(case)
    why = delivery.misfit(case)
    if why is None and (borrowed := reuse.borrowed_profile(case)) is not None:
        message = (
            f"EnergyProfile {borrowed.name}, measured in an earlier run of the same shape, is used as it is: Observe "
            "changes no clock, and so can't check it. Set spec.profiling.reuse to false to do without."
        )
        case.story.tell("Profiled", True, "Reused", message)
        return delivery.on_profile(case, borrowed)
    return delivery.without_profile(case, why)


def _refused_by_node(case: Case, rank: RankReport, plan: StoredPlan) -> Decision:
    """The agent's reason starts with a word in CamelCase, such as GuardTripped or OrderMismatch."""
    word, colon, what = rank.reason.partition(":")
    if word == withdrawal.SLOW_PLAN:
        measured, why = case.story.base.measured, f"The agent of rank {rank.rank} (pod {rank.pod}) found:{what}."
        return withdrawal.withdraw(case, plan.spec.hash, measured.slowdown if measured else None, why)
    message = (
        f"The agent of rank {rank.rank} (pod {rank.pod}) refuses: {rank.reason or 'it gives no reason'}. All GPUs "
        "run default clocks. Restart the job or change the EnergyPlan's spec to try again."
    )
    return case.refuse(word if colon and word.isalpha() else Refusal.RANK_REFUSED, message, condition="Active")


def _complete(case: Case, what: str) -> Decision:
    """The figures stay, the plan goes."""
    base = case.story.base
    if base.phase in (Phase.REFUSED, Phase.COMPLETED):
        return Decision(case.story.keep(), delete_plans=case.all_plans)
    gang = Gang.of(case.seen.nodes)
    for plan in case.seen.plans:
        if gang is not None and gang.complete and plan.spec.job_uid == base.job_uid and base.phase is Phase.ACTIVE:
            case.measure(gang.ranks, plan.spec)
    case.story.note(straggler=None)
    status = case.story.keep()
    savings = f"Measured savings: {status.savings}." if status.measured else "Savings were not measured."
    case.story.tell("Active", False, "JobFinished", what)
    status = case.story.end(Phase.COMPLETED, f"{what} {savings}", carry=("Injected", "Profiled", "Planned"))
    return Decision(status, delete_plans=case.all_plans)


def _outdated(case: Case, job: TrainingJob, attempt: int | None) -> tuple[str, ...]:
    """JobPlans of another run, or of another attempt where that is known, in Observe all that set a clock, and those
    that were slower than allowed, or may be or have a lower clock than is."""
    gpus = [gpu for node in case.seen.nodes for gpu in node.own_gpus]
    return tuple(
        plan.name
        for plan in case.seen.plans
        if plan.spec.job_uid != job.uid
        or (attempt is not None and plan.spec.attempt != attempt)
        or (not case.enforce and _sets_clocks(plan.spec))
        or withdrawal.is_withdrawn(case, plan.spec.hash)
        or policy.breaks(case.seen.policy, plan.spec, gpus)
    )


def _freed(case: Case, outdated: tuple[str, ...], gang: Gang | None) -> tuple[StoredPlan, Notice] | None:
    """The JobPlan beside these without what it has for a straggler that is over, and an Event that says so."""
    plans = (plan for plan in case.seen.plans if plan.name not in outdated)
    return next(filter(None, (stragglers.released(case, plan, gang) for plan in plans)), None)


def _sets_clocks(plan: JobPlanSpec) -> bool:
    return plan.purpose is Purpose.SWEEP or any(any(stage.clocks_mhz) for stage in plan.stages)


def _is_final(status: EnergyPlanStatus) -> bool:
    """What is final would be refused again; what a node refused, and `Active` says the same, sent to it again."""
    reason = {one.type: one.reason for one in status.conditions}
    refusal = Refusal.coded(reason.get("Degraded"))
    return (refusal is not None and refusal.final) or reason.get("Degraded") == reason.get("Active")
