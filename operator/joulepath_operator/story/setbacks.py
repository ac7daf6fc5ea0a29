"""What rules a plan out today and perhaps not in a while: it is tried again before it is final.

A model is off while something else slows the job; a planner takes too long on a busy node; a sweep is lost to agents
that start anew. How often that was so stands in the EnergyPlan's status. It is tried again after pauses that double,
with what the ranks measure by then: at default clocks they do so all the time.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from joulepath_crds import Phase, Purpose, Setback
from joulepath_operator.facts.observation import Decision, StoredProfile
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.figures.profile import seen_again
from joulepath_operator.story.case import ReadyCase

__all__ = ["PLANNING", "PROFILING", "as_seen_now", "on_setback", "pause", "tries"]

PROFILING: Final = frozenset({Refusal.SWEEP_INCOMPLETE})
PLANNING: Final = frozenset({Refusal.MODEL_MISMATCH, Refusal.PLANNER_TIMEOUT})
_TRIES: Final = {PROFILING: 2, PLANNING: 6}
"""Before the first pause a sweep is made twice: three in all, as each runs the job below its default clocks."""
_FIRST_PAUSE_S: Final = {PROFILING: 600, PLANNING: 60}
"""Before the second try; then twice as long each time: half an hour in all. All agents may take minutes to upgrade."""
_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"


def tries(case: ReadyCase, of: frozenset[Refusal]) -> int:
    """How often in a row one of these was in the way, for this spec and attempt."""
    return 0 if (found := _found(case, of)) is None else found.tries


def on_setback(case: ReadyCase, reason: Refusal, message: str) -> Decision:
    """Says when it is tried again, or gives up."""
    of = _like(reason)
    number = tries(case, of) + 1
    if number >= _TRIES[of]:
        final = f"{message} (The last of {_TRIES[of]} tries.)"
        return case.refuse(reason, final, condition=_condition(reason))
    found = Setback(
        reason=reason,
        tries=number,
        message=message,
        next_at=(_time(case.seen.now) + timedelta(seconds=_FIRST_PAUSE_S[of] * 2 ** (number - 1))).strftime(_FORMAT),
        generation=case.seen.generation,
        attempt=case.gang.attempt,
    )
    case.story.note(setback=found)
    return _wait(case, found)


def pause(case: ReadyCase, of: frozenset[Refusal]) -> Decision | None:
    """Until the next try; None where there is nothing to wait for."""
    found = _found(case, of)
    return None if found is None or _time(case.seen.now) >= _time(found.next_at) else _wait(case, found)


def as_seen_now(case: ReadyCase, profile: StoredProfile) -> StoredProfile:
    """The profile of this run, with what was measured since if it was in the way; that of another run as it is."""
    if not tries(case, PLANNING) or profile.job_uid != case.job.uid:
        return profile
    return replace(profile, spec=seen_again(profile.spec, case.gang, case.job.name))


def _wait(case: ReadyCase, found: Setback) -> Decision:
    following, most = found.tries + 1, _TRIES[_like(found.reason)]
    message = f"{found.message} Try {following} of {most}, with what is measured by then, is at {found.next_at}."
    case.story.tell(_condition(found.reason), False, found.reason, message)
    case.story.tell("Degraded", True, found.reason, message)
    progress = f"try {following}/{most} at {found.next_at[11:19]}"
    left_s = (_time(found.next_at) - _time(case.seen.now)).total_seconds()
    if found.reason == Refusal.PLANNER_TIMEOUT and _is_in_force(case):
        message += " The plan before stays in force until then."
        status = case.story.end(Phase.ACTIVE, message, progress=progress, carry=("Active",))
        return Decision(status, requeue_after_s=left_s)
    status = case.story.end(Phase.PROFILING, message, progress=progress)
    return Decision(status, delete_plans=case.all_plans, requeue_after_s=left_s)


def _is_in_force(case: ReadyCase) -> bool:
    """Whether there is a plan that is carried out, and no slower than is allowed by now."""
    if case.story.base.phase is not Phase.ACTIVE or case.plan is None or case.plan.spec.purpose is not Purpose.ENFORCE:
        return False
    allowed = case.plan.spec.allowed_slowdown
    return allowed is not None and allowed <= case.allowed_slowdown


def _found(case: ReadyCase, of: frozenset[Refusal]) -> Setback | None:
    found = case.story.base.setback
    same = found is not None and (found.generation, found.attempt) == (case.seen.generation, case.gang.attempt)
    return found if same and found is not None and Refusal.coded(found.reason) in of else None


def _like(reason: str) -> frozenset[Refusal]:
    return PROFILING if Refusal.coded(reason) in PROFILING else PLANNING


def _condition(reason: str) -> str:
    return "Profiled" if _like(reason) is PROFILING else "Planned"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
