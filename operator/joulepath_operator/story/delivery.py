"""The story's third chapter: from a profile to a plan in force, and to measured savings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from joulepath_crds import (
    MOST_PLAN_BYTES,
    Blocks,
    EnergyPlanStatus,
    FrontierPoint,
    Instruction,
    JobPlanSpec,
    Phase,
    PlanSummary,
    Purpose,
    RankReport,
    StagePlan,
)
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.lags import joined
from joulepath_operator.facts.observation import Decision, Notice, StoredPlan, StoredProfile
from joulepath_operator.facts.policy import every, special
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.facts.request import FrontierRequest, FrontierResult, PlanRefusal, PlanRequest, PlanResult
from joulepath_operator.figures.activation import activation
from joulepath_operator.figures.order import executed, labels
from joulepath_operator.figures.profile import with_delays
from joulepath_operator.figures.savings import LEAST_PAIRS, NOT_YET_KNOWN, figure, is_enough
from joulepath_operator.figures.timing.delays import some_pipelines
from joulepath_operator.story import setbacks
from joulepath_operator.story.case import ReadyCase
from joulepath_operator.story.outcomes import idle, stragglers, withdrawal

__all__ = ["misfit", "on_profile", "without_profile"]

_MISFIT: Final = "ProfileMisfits"
_LEFT_OUT: Final = "MeasurementLeftOut"


def on_profile(case: ReadyCase, profile: StoredProfile) -> Decision:
    """Plans on a profile, or follows the plan that was made on it."""
    case.story.note(profile=profile.name)
    withdrawal.tell(case)
    inputs = _inputs(case, profile)
    base, plan, answer = case.story.base, case.plan, _answer_for(case, profile)
    is_delivered = plan is not None and base.plan is not None and base.plan.hash == plan.spec.hash
    if plan is not None and is_delivered and (decision := _on_delivered(case, profile, plan, inputs)) is not None:
        return decision
    if (pause := setbacks.pause(case, setbacks.PLANNING)) is not None:
        return pause
    if (decision := idle.go_on(case, profile)) is not None:
        return decision
    if not case.timed:
        return case.wait_for_timing()
    if answer is None:
        status, asked = case.not_planned("Computing", "Profile complete; computing the plan."), case.seen.asked
        if asked is None or asked.inputs != _numbered(case, inputs):  # else it computes
            asked = _request(case, profile, _numbered(case, inputs))
        return Decision(status, ask_planner=asked)
    if isinstance(answer, PlanRefusal):
        return _on_refusal(case, profile, answer)
    told = _with_delays(case, profile, answer)
    decision = _deliver(case, told, answer, _inputs(case, told))
    return decision if told == profile else replace(decision, write_profile=told)


def _on_refusal(case: ReadyCase, profile: StoredProfile, answer: PlanRefusal) -> Decision:
    """Who only observes does without the profile of another run; else it is tried again, or final."""
    if profile.job_uid != case.job.uid and answer.reason is not Refusal.PLANNER_TIMEOUT:
        return without_profile(
            case,
            f"EnergyProfile {profile.name}, measured in an earlier run of the same shape, isn't used: {answer.message} "
            "What a plan would save is not known. To find out, set spec.mode to Enforce.",
        )
    if answer.reason in setbacks.PLANNING:
        return setbacks.on_setback(case, answer.reason, answer.message)
    bounds = f" {case.bounds}" if case.bounds else ""
    return case.refuse(answer.reason, f"{answer.message}{bounds}", condition="Planned")


def _on_delivered(case: ReadyCase, profile: StoredProfile, plan: StoredPlan, inputs: str) -> Decision | None:
    """Follows a plan, or has pipelines stretched for a straggler; its frontier comes after. None where another plan is
    asked for, and none is stretched."""
    if stragglers.own_inputs(plan) == inputs:
        turn = stragglers.look(case, plan, partial(_request, case, profile))
    elif plan.spec.stretched is not None:
        turn = stragglers.Turn(stragglers.release(case, plan))
    else:
        return None
    if turn.plan is not None:
        status = _tell_new(case, case.story.keep().plan)
        return Decision(status, write_plan=turn.plan, notice=turn.notice, requeue_after_s=turn.again_s)
    is_busy = turn.ask is not None or turn.is_answered
    frontier = None if is_busy else _frontier_request(case, profile, inputs)
    if case.story.base.phase is Phase.ACTIVE and case.timed and frontier is None:  # it is of the same try as the plan
        case.story.note(setback=None)
    decision = _follow(case, plan)
    again_s = min((one for one in (decision.requeue_after_s, turn.again_s) if one is not None), default=None)
    notice = decision.notice or turn.notice
    return replace(decision, ask_planner=turn.ask or frontier, notice=notice, requeue_after_s=again_s)


def _answer_for(case: ReadyCase, profile: StoredProfile) -> PlanResult | PlanRefusal | None:
    """The planner's answer, if it was asked for just this: while it computes, job and spec may change."""
    asked, answer = case.seen.asked, case.seen.planned
    if asked is None or not isinstance(answer, PlanResult | PlanRefusal):
        return None
    return answer if asked.inputs == _numbered(case, _inputs(case, profile)) else None


def _with_delays(case: ReadyCase, profile: StoredProfile, result: PlanResult) -> StoredProfile:
    """The profile of this run with the delays that its plan rests upon, where its survey, which may take too long, has
    told none."""
    is_told = profile.spec.transfers or any(stage.tail_s for stage in profile.spec.stages)
    if is_told or profile.job_uid != case.job.uid:
        return profile
    return replace(profile, spec=with_delays(profile.spec, result.delays))


def misfit(case: ReadyCase) -> str | None:
    """Why this run, as its spec stands, does without the profile that it began with; None where nothing is amiss."""
    here = _MISFIT, case.seen.generation
    told = (one.message for one in case.story.base.conditions if (one.reason, one.observed_generation) == here)
    return next(told, None)


def without_profile(case: ReadyCase, why: str | None = None) -> Decision:
    """Observe without a profile: default clocks against default clocks. why: one of an earlier run isn't used."""
    case.story.note(profile=None, plan=None, predicted=None, frontier=(), setback=None)
    none = (
        "Observe changes no clock, so it can't measure several, and no earlier run of this shape has left an "
        "EnergyProfile: what a plan would save is not known. To find out, set spec.mode to Enforce."
    )
    case.story.tell("Profiled", False, _MISFIT if why else "ObserveOnly", why or none)
    inputs = _inputs(case, None)
    if case.plan is not None and case.plan.inputs == inputs:
        return _follow(case, case.plan)
    if not case.timed:
        return case.wait_for_timing()
    spec = _enforcing(case, _as_seen(case.gang), case.gang.control_time_s, case.gang.default_clock_mhz)
    plan = case.new_plan(spec, inputs)
    return _too_large(case, plan) or Decision(_tell_new(case, None), write_plan=plan)


def _deliver(case: ReadyCase, profile: StoredProfile, result: PlanResult, inputs: str) -> Decision:
    stages = result.stages if case.enforce else _at_default(result.stages, profile)
    plan = case.new_plan(
        _enforcing(
            case,
            stages,
            result.plan_time_s if case.enforce else result.control_time_s,
            profile.spec.default_clock_mhz,
        ),
        inputs,
    )
    if (refusal := _too_large(case, plan)) is not None:
        return refusal
    if withdrawal.is_withdrawn(case, plan.spec.hash):
        return withdrawal.give_up(case, "The planner has no other plan than one that was slower than allowed.")
    summary = PlanSummary(
        hash=plan.spec.hash,
        granularity=result.granularity,
        t_min_s=figure(result.t_min_s),
        iteration_time_s=figure(result.iteration_time_s),
        baseline_j=figure(result.baseline_j),
        energy_j=figure(result.energy_j),
        lower_bound_j=figure(result.lower_bound_j),
        predicted_savings=figure(result.predicted_savings),
        bound_savings=figure(result.bound_savings),
        switch_s=None if result.switch_s is None else figure(result.switch_s),
        switch_half_s=None if result.switch_half_s is None else figure(result.switch_half_s),
    )
    frontier = _in_figures(result.frontier)
    case.story.note(plan=summary, predicted=f"{summary.predicted_savings:.1%}", frontier=frontier)
    if idle.is_idle(case, result):
        return idle.begin(case, summary, frontier)
    notice = Notice(_LEFT_OUT, " ".join(result.remarks)) if result.remarks else None
    return Decision(_tell_new(case, summary), write_plan=plan, notice=notice)


def _too_large(case: ReadyCase, plan: StoredPlan) -> Decision | None:
    """Its refusal, where no agent would read it."""
    if (size := plan.spec.size) <= MOST_PLAN_BYTES:
        return None
    instructions = sum(len(stage.order) for stage in plan.spec.stages)
    message = (
        f"The plan of {instructions} instructions has {size} bytes, packed; nodes take {MOST_PLAN_BYTES}. A coarser "
        "spec.granularity (phase or rank) makes it smaller, and so do fewer microbatches in an iteration."
    )
    return case.refuse(Refusal.PLAN_TOO_LARGE, message, condition="Planned")


def _frontier_request(case: ReadyCase, profile: StoredProfile, inputs: str) -> FrontierRequest | None:
    """Notes the frontier that belongs to a plan that is sent, once it is there; until then it is asked for, once."""
    wanted, asked, answer = f"frontier {inputs}", case.seen.asked, case.seen.planned
    if case.story.base.frontier or not case.timed:
        return None
    if not isinstance(asked, FrontierRequest) or asked.inputs != wanted:
        return FrontierRequest(wanted, _request(case, profile, inputs))
    if isinstance(answer, FrontierResult):
        case.story.note(frontier=_in_figures(answer.points))
    return asked if answer is None else None


def _in_figures(points: Sequence[FrontierPoint]) -> tuple[FrontierPoint, ...]:
    return tuple(
        FrontierPoint(iteration_time_s=figure(one.iteration_time_s), lower_bound_j=figure(one.lower_bound_j))
        for one in points
    )


def _enforcing(
    case: ReadyCase, stages: tuple[StagePlan, ...], plan_time_s: float, default_clock_mhz: int
) -> JobPlanSpec:
    measurement = case.seen.spec.measurement
    return JobPlanSpec(
        energy_plan=case.seen.name,
        job=case.job.name,
        job_uid=case.job.uid,
        attempt=case.gang.attempt,
        purpose=Purpose.ENFORCE,
        hash="",
        blocks=Blocks(iterations=measurement.block_iterations, pairs=measurement.pairs, every=every(case.seen.policy)),
        stages=stages,
        default_clock_mhz=default_clock_mhz,
        control_iteration_time_s=case.gang.control_time_s,
        plan_iteration_time_s=plan_time_s,
        allowed_slowdown=case.allowed_slowdown,
    )


def _tell_new(case: ReadyCase, summary: PlanSummary | None) -> EnergyPlanStatus:
    case.story.note(measured=None, savings=NOT_YET_KNOWN)
    _tell_planned(case, summary)
    message = f"Plan sent; none of {case.gang.world_size} ranks has it ready yet."
    case.story.tell("Active", False, "Staging", message)
    return case.story.end(Phase.PLANNED, message)


def _tell_planned(case: ReadyCase, summary: PlanSummary | None) -> None:
    if summary is None:
        case.story.tell("Planned", True, "ObserveOnly", "Every clock stays the default one.")
        return
    watch = "" if case.enforce else " (Observe: it is not carried out)"
    if more := withdrawal.reserve(case):
        watch += f", with a reserve of {more:.1%}, as one before was slower than allowed"
    case.story.tell(
        "Planned",
        True,
        "Planned",
        f"Predicted to save {summary.predicted_savings:.1%} of the job's energy, of {summary.bound_savings:.1%} that "
        f"can be saved at this iteration time; granularity {summary.granularity.value}{watch}."
        + _tell_switch(summary)
        + (f" {case.bounds}" if case.bounds else "")
        + _straggler(case),
    )


def _tell_switch(summary: PlanSummary) -> str:
    """What a switch costs by itself, as a sentence; empty where that wasn't tried."""
    if summary.switch_s is None or summary.switch_half_s is None:
        return ""
    half = f"{summary.switch_half_s * 1e3:.2g} ms"
    if not summary.switch_s:
        return f" Switches of clock cost no time of their own that could be told, to ±{half} each."
    return (
        f" A switch of clock holds up its GPU for {summary.switch_s * 1e3:.2g} ± {half}, as was tried in the job, and "
        "is planned for."
    )


def _straggler(case: ReadyCase) -> str:
    straggler = case.story.keep().straggler
    return f" {straggler.message}" if straggler is not None else ""


def _follow(case: ReadyCase, plan: StoredPlan) -> Decision:
    """A plan that is as it should be: see it staged, activated and applied, and measure."""
    base, gang, spec = case.story.base, case.gang, plan.spec
    _tell_planned(case, case.story.keep().plan)
    if spec.activate_at is None:
        message = f"The plan is with the nodes; {case.unready(spec.hash)}, it begins once all are."
        case.story.tell("Active", False, "Staging", message)
        status = case.story.end(Phase.PLANNED, message, progress=case.readiness(spec.hash))
        return Decision(status, write_plan=case.activated(plan))
    waiting = [rank for rank in gang.ranks if rank.applied_hash != spec.hash]
    if waiting and base.phase is not Phase.ACTIVE:
        at = min(rank.iteration for rank in gang.ranks)
        message, progress = _tell_waiting(gang, waiting), None
        if at <= spec.activate_at:
            message = f"The plan begins at iteration {spec.activate_at}; the job is at {at}."
            progress = f"iteration {at}/{spec.activate_at}"
        case.story.tell("Active", False, "Waiting", message)
        return Decision(case.story.end(Phase.PLANNED, message, progress=progress))
    case.measure(gang.ranks, spec)
    if case.enforce and (slowdown := withdrawal.excessive_slowdown(case, spec, gang.ranks)) is not None:
        return withdrawal.withdraw(case, spec.hash, slowdown, withdrawal.in_words(case, slowdown))
    message = _tell_active(case, spec)
    case.story.tell("Active", True, "Applied", f"In force since iteration {spec.activate_at}.")
    if waiting:
        message = _tell_waiting(gang, waiting)
        case.story.tell("Degraded", True, "RanksAtDefault", message)
        if len(waiting) == gang.world_size:
            case.story.tell("Active", False, "RanksAtDefault", message)
    status = case.story.end(Phase.ACTIVE, message, progress=_progress(case, spec))
    return Decision(status, write_plan=_sparser(case, plan))


def _sparser(case: ReadyCase, plan: StoredPlan) -> StoredPlan | None:
    """The plan with the end of its dense pairs, once enough is known; None where they end by themselves by then."""
    measured, spec = case.story.keep().measured, plan.spec
    if spec.blocks is None or spec.blocks.every is None or spec.sparse_from is not None:
        return None
    begin = activation(case.gang)
    if measured is None or not is_enough(measured) or begin >= _dense_end(spec):
        return None
    return replace(plan, spec=spec.model_copy(update={"sparse_from": begin}))


def _tell_waiting(gang: Gang, waiting: Sequence[RankReport]) -> str:
    reasons = sorted({rank.reason for rank in waiting if rank.reason})
    why = f": {'; '.join(reasons[:3])}" if reasons else ""
    return f"{len(waiting)} of {gang.world_size} ranks run default clocks{why}. They join at the next block."


def _tell_active(case: ReadyCase, spec: JobPlanSpec) -> str:
    status = case.story.keep()
    what = "The plan is in force" if case.enforce else "Observing, no clock is set"
    if status.measured is None:
        turns = "Blocks of iterations with it and without take turns; savings are known after four pairs."
        return f"{what}. {turns}{_straggler(case)}"
    slowdown, blocks = status.measured.slowdown.mean, spec.blocks
    standing = "" if blocks is None or not blocks.every or _is_dense(case, spec) else f", now one in {blocks.every}"
    return (
        f"{what}: {status.savings} of energy saved, iteration time {slowdown:+.2%} "
        f"({status.measured.pairs} pairs measured{standing}).{_straggler(case)}"
    )


def _progress(case: ReadyCase, spec: JobPlanSpec) -> str:
    """Of the dense pairs, how many of at most how many; then how many are counted."""
    measured = case.story.keep().measured
    of = f"/{spec.blocks.pairs}" if spec.blocks is not None and _is_dense(case, spec) else ""
    return f"{measured.pairs if measured else f'<{LEAST_PAIRS}'}{of} pairs"


def _is_dense(case: ReadyCase, spec: JobPlanSpec) -> bool:
    """Whether one pair follows the other; else one in `every` is measured, or none any more."""
    at, end = min(rank.iteration for rank in case.gang.ranks), _dense_end(spec)
    return at < (end if spec.sparse_from is None else min(end, spec.sparse_from))


def _dense_end(spec: JobPlanSpec) -> int:
    assert spec.blocks is not None
    assert spec.activate_at is not None
    return spec.activate_at + 2 * spec.blocks.pairs * spec.blocks.iterations


def _inputs(case: ReadyCase, profile: StoredProfile | None) -> str:
    spec = case.seen.spec
    body = [
        case.job.uid,
        case.gang.attempt,
        profile and [profile.name, profile.spec.to_api()],
        spec.mode,
        spec.max_slowdown_percent,
        spec.granularity,
        spec.measurement.to_api(),
    ]
    if more := withdrawal.reserve(case):
        body.append(more)
    if bounds := special(case.seen.policy, case.topology.gpu_model):
        body.append(bounds)
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def _numbered(case: ReadyCase, inputs: str) -> str:
    """What tells a try from the one before. No part of a plan's own inputs: once it is in force, they are forgotten."""
    return f"{inputs} after {setbacks.tries(case, setbacks.PLANNING)}"


def _request(case: ReadyCase, profile: StoredProfile, inputs: str) -> PlanRequest:
    profile = setbacks.as_seen_now(case, profile)
    return PlanRequest(
        inputs=inputs,
        profile=profile.spec,
        orders=tuple(labels(rank) for rank in case.gang.pipeline()),
        iterations=some_pipelines(case.gang, case.topology),
        control_time_s=case.gang.control_time_s,
        max_slowdown=case.seen.spec.max_slowdown_percent / 100,
        granularity=case.seen.spec.granularity,
        # Agents that were started anew and GPUs that were hardly swept know few lags; the profile is of the same model.
        lag=joined(case.gang.lag(), profile.spec.lag),
        supported_clocks_mhz=case.gang.supported_clocks_mhz(),
        reserve=withdrawal.reserve(case),
    )


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
            durations_s=tuple(top[one.stage, Instruction.parse(label, one.stage).kind] for label in one.order),
        )
        for one in stages
    )


def _as_seen(gang: Gang) -> tuple[StagePlan, ...]:
    """The instructions as they run, at default clocks."""
    stages = []
    for rank in gang.pipeline():
        timed = {Instruction.parse(one.instruction, one.stage): one for one in rank.timeline}
        for stage in rank.stages:
            run = [one for one in executed(rank) if one.stage == stage and one in timed]
            stages.append(
                StagePlan(
                    stage=stage,
                    order=tuple(one.name for one in run),
                    clocks_mhz=(0,) * len(run),
                    durations_s=tuple(timed[one].end_s - timed[one].begin_s for one in run),
                )
            )
    return tuple(sorted(stages, key=lambda one: one.stage))
