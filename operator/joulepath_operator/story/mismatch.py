"""A model that is off: what else went on when the job was measured may be over, so it is made again before it is final.

How often it was off stands in the EnergyPlan's status. After pauses that double, the planner is asked again, with what
the ranks measure by then: at default clocks they do so all the time.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from joulepath_crds import Mismatch, Phase
from joulepath_operator.facts.observation import Decision, StoredProfile
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.facts.request import PlanRefusal
from joulepath_operator.figures.profile import seen_again
from joulepath_operator.story.case import ReadyCase

__all__ = ["as_seen_now", "on_mismatch", "pause", "tries"]

_TRIES: Final = 6
_FIRST_PAUSE_S: Final = 60
"""Before the second try; then twice as long each time: half an hour in all."""
_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"


def tries(case: ReadyCase) -> int:
    """How often the model was off, for this spec and attempt."""
    return 0 if (found := _found(case)) is None else found.tries


def on_mismatch(case: ReadyCase, refusal: PlanRefusal) -> Decision:
    """Says when it is tried again, or gives up."""
    number = tries(case) + 1
    if number >= _TRIES:
        final = f"{refusal.message} (The last of {_TRIES} tries in half an hour.)"
        return case.refuse(refusal.reason, final, condition="Planned")
    found = Mismatch(
        tries=number,
        message=refusal.message,
        next_at=(_time(case.seen.now) + timedelta(seconds=_FIRST_PAUSE_S * 2 ** (number - 1))).strftime(_FORMAT),
        generation=case.seen.generation,
        attempt=case.gang.attempt,
    )
    case.story.note(mismatch=found)
    return _wait(case, found)


def pause(case: ReadyCase) -> Decision | None:
    """Until the next try; None where there is nothing to wait for."""
    found = _found(case)
    return None if found is None or _time(case.seen.now) >= _time(found.next_at) else _wait(case, found)


def as_seen_now(case: ReadyCase, profile: StoredProfile) -> StoredProfile:
    """The profile of this run, with what was measured since if it was off; that of another run stays as it is."""
    if not tries(case) or profile.job_uid != case.job.uid:
        return profile
    return replace(profile, spec=seen_again(profile.spec, case.gang, case.job.name))


def _wait(case: ReadyCase, found: Mismatch) -> Decision:
    message = (
        f"{found.message} Try {found.tries + 1} of {_TRIES}, with what is measured by then, is at {found.next_at}."
    )
    case.story.tell("Planned", False, Refusal.MODEL_MISMATCH, message)
    case.story.tell("Degraded", True, Refusal.MODEL_MISMATCH, message)
    progress = f"try {found.tries + 1}/{_TRIES} at {found.next_at[11:19]}"
    status = case.story.end(Phase.PROFILING, message, progress=progress)
    left_s = (_time(found.next_at) - _time(case.seen.now)).total_seconds()
    return Decision(status, delete_plans=case.all_plans, requeue_after_s=left_s)


def _found(case: ReadyCase) -> Mismatch | None:
    found = case.story.base.mismatch
    same = found is not None and (found.generation, found.attempt) == (case.seen.generation, case.gang.attempt)
    return found if same else None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
