"""A pipeline that is held up, for which the others needn't hurry: they are stretched until it is over.

All replicas of a job wait for the slowest. So while one is known to be slower, the JobPlan tells the others to take as
long as that one does, beside the plan that all play. It is another JobPlan, with a hash of its own: staged, begun
together and measured like any. When it is over, the plan as it was takes its place: whoever hears of that runs default
clocks at once, and the plan again from where all have it.

Which one is slower is announced on the job, or told by its ranks, who know what their own work takes; an announcement
goes before that. Either may be wrong, or over sooner. Blocks at default clocks go on meanwhile, more of them than else,
and where iterations with the plan are longer than is allowed over those, by the word of an agent or by the figures
here, nobody is stretched any more until something else is announced, or found once nothing was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from joulepath_crds import JobPlanSpec, RankReport, Straggler, Stragglers, Stretched
from joulepath_operator.facts.observation import Notice, StoredPlan
from joulepath_operator.facts.policy import every
from joulepath_operator.facts.request import Factors, PlanRefusal, PlanRequest, StretchRequest, StretchResult
from joulepath_operator.figures.savings import figure
from joulepath_operator.figures.stragglers import (
    Announcement,
    AnnouncementError,
    announced,
    read_announcement,
    told_by_ranks,
)
from joulepath_operator.figures.timing.delays import some_pipelines
from joulepath_operator.story.case import Case, ReadyCase
from joulepath_operator.story.outcomes import withdrawal

__all__ = ["Turn", "is_over", "is_refused_for_one", "look", "own_inputs", "release"]

_BESIDE: Final = " beside "
_EVERY: Final = 10
"""Sparse pairs are one in so many: a straggler that recovers unannounced shows in their control blocks alone."""
_MOST_BYTES: Final = 1 << 20
"""Of a JobPlan: etcd takes one and a half MiB."""
_TOLD: Final = 1024
_FOUND: Final = "StragglerFound"
_OVER: Final = "StragglerOver"
_DISPROVED: Final = "StragglerDisproved"
_UNREADABLE: Final = "StragglerUnreadable"
_GUARDS: Final = frozenset({withdrawal.SLOW_PLAN, "GuardTripped"})
_PATIENCE_S: Final = 10.0, 600.0
"""How long a straggler must last that ranks tell of, after the first one and at most; doubled with each that is over.
To be stretched and released takes two changes of plans, with default clocks until each begins."""
_ANNOUNCED: Final = "Announced"
_SLOW: Final = "Slow"


@dataclass(frozen=True, slots=True)
class Turn:
    """What comes of a look at stragglers: a JobPlan to take the place of the one there is, or something to ask."""

    plan: StoredPlan | None = None
    ask: StretchRequest | None = None
    is_answered: bool = False
    """Nothing came of what was asked: whoever asks the planner anything else has it forgotten, and asked again."""
    notice: Notice | None = None
    again_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Held:
    """What is known of a straggler now."""

    key: str
    slow: Factors
    what: str
    reason: str
    until: str | None = None

    @property
    def replicas(self) -> tuple[int, ...]:
        """As many of them as a status names."""
        return tuple(sorted(self.slow))[:_TOLD]

    @property
    def slowdown(self) -> float:
        return max(factor for stages in self.slow.values() for factor in stages.values())


def own_inputs(plan: StoredPlan) -> str:
    """What the plan that all play was made from."""
    return plan.inputs.partition(_BESIDE)[0]


def is_refused_for_one(case: Case, plan: StoredPlan, rank: RankReport) -> bool:
    """Whether what a rank refuses is such a plan, so that the one before it is played again; or was, and what it still
    says is of that: no guard says so of a plan that hasn't begun."""
    told, word = case.story.base.straggler, rank.reason.partition(":")[0]
    is_echo = told is not None and told.disproved and plan.spec.activate_at is None and word in _GUARDS
    return plan.spec.stretched is not None or is_echo


def is_over(case: Case, plan: StoredPlan) -> bool:
    """Whether it is a plan for a straggler that is announced no more, as far as can be told without all ranks."""
    told = case.story.base.straggler
    if plan.spec.stretched is None:
        return False
    if told is not None and told.reason != _ANNOUNCED:
        return not _are_followed(case)
    try:
        found = _announcement(case)
    except AnnouncementError:
        return True
    return found is None or told is None or _key(found) != told.key


def look(case: ReadyCase, plan: StoredPlan, request: Callable[[str], PlanRequest]) -> Turn:
    """At a job whose plan is delivered; `request` is what that was asked for by."""
    told, stretched = case.story.base.straggler, plan.spec.stretched is not None
    held, notice = _look(case)
    known = told if told is not None or held is None else _known(case, held, "The others are stretched.")
    if stretched and known is not None and (why := _disproof(case, plan)):
        message = f"{known.message} But {why}. So nobody waits for it: the plan as it was is played again."
        case.story.note(straggler=known.model_copy(update={"disproved": True, "hash": None, "message": message}))
        _count(case, known)
        return Turn(release(case, plan), notice=Notice(_DISPROVED, message))
    if held is None:
        case.story.note(straggler=None)
        over = Notice(_OVER, f"{told.message} It is over.") if told is not None and stretched else None
        if over is not None:
            _count(case, told)
        return Turn(release(case, plan) if stretched else None, notice=notice or over)
    again_s = None if held.until is None else (_time(held.until) - _time(case.seen.now)).total_seconds()
    if told is not None and (_is_disproved(told, held) or (stretched and told.key == held.key)):
        return Turn(notice=notice, again_s=again_s)
    if (wait_s := _wait_s(case, held)) > 0:
        message = "Others of this run were soon over: nobody is stretched before it has lasted for a while."
        return replace(_as_it_was(case, plan, held, message), notice=notice, again_s=wait_s)
    turn = _stretch(case, plan, held, request)
    return replace(turn, notice=turn.notice or notice, again_s=again_s)


def _count(case: ReadyCase, told: Straggler | None) -> None:
    if told is not None and told.reason != _ANNOUNCED:
        case.story.note(stragglers_over=case.story.base.stragglers_over + 1)


def _wait_s(case: ReadyCase, found: _Held) -> float:
    """For how long one that ranks tell of is still to last before it is answered."""
    over = case.story.base.stragglers_over
    if found.reason == _ANNOUNCED or not over:
        return 0.0
    first_s, most_s = _PATIENCE_S
    lasted_s = (_time(case.seen.now) - _time(_since(case, found))).total_seconds()
    return min(most_s, first_s * 2.0 ** min(over - 1, 10)) - lasted_s


def _since(case: ReadyCase, found: _Held) -> str:
    told = case.story.base.straggler
    return told.since if told is not None and told.replicas == found.replicas else case.seen.now


def release(case: ReadyCase, plan: StoredPlan) -> StoredPlan:
    """The plan that all play, as it was."""
    before = case.story.base.plan
    following = case.new_plan(_anew(plan.spec, None, every(case.seen.policy)), own_inputs(plan))
    if before is not None:
        summary = before.model_copy(update={"hash": following.spec.hash})
        case.story.note(plan=summary, predicted=f"{summary.predicted_savings:.1%}")
    return following


def _stretch(case: ReadyCase, plan: StoredPlan, found: _Held, request: Callable[[str], PlanRequest]) -> Turn:
    """Asks how far the others may be stretched, and has them stretched then."""
    told, free = case.story.base.straggler, sorted(set(range(case.topology.data_parallel)) - found.slow.keys())
    if case.topology.stages == 1 or not free:
        why = "it has no pipeline" if case.topology.stages == 1 else "all of its pipelines are"
        return _as_it_was(case, plan, found, f"None of this job's are stretched, as {why}.")
    if not case.timed:
        message = "Waiting until every rank has timed a few iterations at default clocks."
        return replace(_as_it_was(case, plan, found, message), notice=None)
    asked, answer = case.seen.asked, case.seen.planned
    wanted = f"{own_inputs(plan)}{_BESIDE}{found.key}"
    if not isinstance(asked, StretchRequest) or asked.inputs != wanted:
        usual = _usual(case, request(wanted), found)
        usual = replace(usual, control_time_s=plan.spec.control_iteration_time_s)
        asked, answer = StretchRequest(wanted, usual, plan.spec.stages, found.slow), None
    if answer is None:
        # One that is known to be slower now than it was may be waited for as it was until then.
        if told is not None and told.replicas == found.replicas and told.slowdown <= found.slowdown:
            return Turn(ask=asked)
        message = "It is being computed how far the others may be stretched."
        return replace(_as_it_was(case, plan, found, message), ask=asked, notice=None)
    if isinstance(answer, PlanRefusal):
        return _in_vain(case, plan, found, f"The others aren't stretched: {answer.message}")
    assert isinstance(answer, StretchResult)
    if not answer.stages:
        return _in_vain(case, plan, found, "Nothing worth two changes of plans is saved by stretching the others.")
    spec = _stretched(case, plan.spec, answer, tuple(free))
    if len(json.dumps(spec.to_api())) > _MOST_BYTES:
        message = "The others aren't stretched: a plan for that is too large for an object of the API. A coarser "
        return _in_vain(case, plan, found, f"{message}spec.granularity (phase or rank) doesn't make it smaller.")
    following = case.new_plan(spec, wanted)
    message = (
        f"The others are stretched to {answer.plan_time_s:.4g} s; predicted to save {answer.predicted_savings:.1%} of "
        f"the whole job's energy, {answer.predicted_unstretched:.1%} without that."
    )
    if answer.default_replicas:
        message += " It needs the slack that the plan uses up, and runs default clocks."
    known = _known(case, found, message).model_copy(
        update={
            "hash": following.spec.hash,
            "iteration_time_s": figure(answer.plan_time_s),
            "predicted_savings": figure(answer.predicted_savings),
            "predicted_unstretched": figure(answer.predicted_unstretched),
        }
    )
    base = case.story.base.plan
    assert base is not None
    summary = base.model_copy(update={"hash": following.spec.hash})
    case.story.note(straggler=known, plan=summary, predicted=f"{answer.predicted_savings:.1%}")
    return Turn(following, notice=Notice(_FOUND, known.message))


def _usual(case: ReadyCase, request: PlanRequest, found: _Held) -> PlanRequest:
    """As iterations run where nothing holds them up. Others have waited at their ends for long, perhaps, and to them
    that is a tail: those that are slower tell it, and where none of these is among the few that tell how their
    iterations run, the profile does, of the time before.
    """
    if slow := some_pipelines(case.gang, case.topology, found.slow):
        return replace(request, iterations=slow)
    tails_s = {stage.stage: stage.tail_s for stage in request.profile.stages}
    return replace(
        request,
        iterations=tuple(
            tuple(replace(rank, tail_s=min(rank.tail_s, tails_s[max(rank.stages)])) for rank in pipeline)
            for pipeline in request.iterations
        ),
    )


def _as_it_was(case: ReadyCase, plan: StoredPlan, found: _Held, message: str) -> Turn:
    """Nobody is stretched for this one: the plan that all play stays, or comes back."""
    known = _known(case, found, message)
    case.story.note(straggler=known)
    told = case.story.base.straggler
    notice = None if told is not None and told.message == known.message else Notice(_FOUND, known.message)
    return Turn(release(case, plan) if plan.spec.stretched is not None else None, notice=notice)


def _in_vain(case: ReadyCase, plan: StoredPlan, found: _Held, message: str) -> Turn:
    return replace(_as_it_was(case, plan, found, message), is_answered=True)


def _known(case: ReadyCase, found: _Held, message: str) -> Straggler:
    return Straggler(
        key=found.key,
        replicas=found.replicas,
        slowdown=figure(found.slowdown),
        reason=found.reason,
        since=_since(case, found),
        until=found.until,
        message=f"{found.what} {message}",
    )


def _stretched(case: ReadyCase, spec: JobPlanSpec, answer: StretchResult, free: tuple[int, ...]) -> JobPlanSpec:
    is_bounded = case.seen.policy.measurement.max_control_percent is not None
    stretched = Stretched(
        replicas=free,
        default_replicas=answer.default_replicas,
        stages=answer.stages,
        control_iteration_time_s=answer.control_time_s,
        plan_iteration_time_s=answer.plan_time_s,
    )
    return _anew(spec, stretched, every(case.seen.policy) if is_bounded else _EVERY)


def _anew(spec: JobPlanSpec, stretched: Stretched | None, sparse: int) -> JobPlanSpec:
    assert spec.blocks is not None
    blocks = spec.blocks.model_copy(update={"every": sparse})
    changes = {"hash": "", "activate_at": None, "sparse_from": None, "stretched": stretched, "blocks": blocks}
    return spec.model_copy(update=changes)


def _look(case: ReadyCase) -> tuple[_Held | None, Notice | None]:
    """What holds the job up now, if anything; and what is wrong with what is announced."""
    notice = None
    try:
        if (said := _announced(case)) is not None:
            return said, None
    except AnnouncementError as error:
        notice = _complain(case, str(error))
    slow = told_by_ranks(case.gang) if _are_followed(case) and case.topology.data_parallel > 1 else {}
    return (_of_ranks(case, slow) if slow else None), notice


def _of_ranks(case: ReadyCase, slow: Factors) -> _Held:
    ranks = [one for one in case.gang.ranks if one.slowdown > 1 and one.coordinates.data in slow]
    worst = max(ranks, key=lambda one: one.slowdown)
    others = f" ({len(ranks)} ranks are slower)" if len(ranks) > 1 else ""
    why = f", as the driver says by {worst.slowed_by}" if worst.slowed_by else ""
    what = (
        f"Rank {worst.rank} (pod {worst.pod}, replica {worst.coordinates.data}) takes {worst.slowdown:.2f} times as "
        f"long as usual{why}{others}."
    )
    told = sorted((replica, sorted(stages.items())) for replica, stages in slow.items())
    return _Held(_digest(told), slow, what, worst.slowed_by.capitalize() or _SLOW)


def _announced(case: ReadyCase) -> _Held | None:
    """What is announced and not over.

    Raises:
        AnnouncementError: It can't be read, or isn't of this job.
    """
    if (found := _announcement(case)) is None:
        return None
    who = f"Rank {found.rank}" if found.rank is not None else f"Replica {found.replica}"
    until = None if found.until is None else found.until.strftime("%Y-%m-%dT%H:%M:%SZ")
    what = f"{who} is announced to take {found.slowdown:g} times as long{f' until {until}' if until else ''}."
    return _Held(_key(found), announced(case.gang, found), what, _ANNOUNCED, until)


def _announcement(case: Case) -> Announcement | None:
    """What is announced and not over."""
    job = case.seen.job
    if job is None or job.straggler is None or not _are_followed(case):
        return None
    found = read_announcement(job.straggler)
    return found if found.until is None or _time(case.seen.now) < found.until else None


def _are_followed(case: Case) -> bool:
    return case.enforce and case.seen.spec.stragglers is Stragglers.STRETCH


def _is_disproved(told: Straggler, found: _Held) -> bool:
    """Ranks tell a little more or less each time, or it are others that do; an announcement is another one."""
    return told.disproved and (told.key == found.key or _ANNOUNCED not in (told.reason, found.reason))


def _key(found: Announcement) -> str:
    return _digest([found.rank, found.replica, found.slowdown, found.until and found.until.isoformat()])


def _digest(told: Any) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _disproof(case: ReadyCase, plan: StoredPlan) -> str:
    """Why it is no straggler; empty where it may be one."""
    if refused := case.gang.refused_ranks():
        return f"the agent of rank {refused[0].rank} (pod {refused[0].pod}) found: {refused[0].reason.rstrip('.')}"
    slowdown = withdrawal.excessive_slowdown(case, plan.spec, case.gang.ranks)
    return "" if slowdown is None else f"iterations last {slowdown.mean:.2%} longer with it than at default clocks"


def _complain(case: ReadyCase, message: str) -> Notice | None:
    """What can't be followed is amiss, and an Event once."""
    known = any((one.reason, one.message) == (_UNREADABLE, message) for one in case.seen.status.conditions)
    case.story.tell("Degraded", True, _UNREADABLE, message)
    return None if known else Notice(_UNREADABLE, message)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
