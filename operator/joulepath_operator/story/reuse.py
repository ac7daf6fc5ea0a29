"""Which measurements a run starts from: its own, or those that an earlier run of the same shape has left."""

from __future__ import annotations

from joulepath_operator.facts.observation import StoredProfile
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.facts.request import PlanRefusal
from joulepath_operator.story import delivery
from joulepath_operator.story.case import ReadyCase

__all__ = ["earlier_profile", "own_profile"]


def own_profile(case: ReadyCase) -> StoredProfile | None:
    """The profile measured in this run."""
    return next((one for one in _of_this_shape(case) if one.job_uid == case.job.uid), None)


def earlier_profile(case: ReadyCase) -> StoredProfile | None:
    """The best of an earlier run, of a job of this name if there is one; None where none may or can be used."""
    if not case.seen.spec.profiling.reuse:
        return None
    best = min(_of_this_shape(case), key=lambda one: (one.spec.job != case.job.name, one.name), default=None)
    return None if best is None or (case.enforce and _misfits(case, best)) else best


def _of_this_shape(case: ReadyCase) -> list[StoredProfile]:
    return [one for one in case.seen.profiles if one.spec.topology == case.topology]


def _misfits(case: ReadyCase, profile: StoredProfile) -> bool:
    """Whether the planner has just found that the stored profile is of another time: then measure again."""
    answer = delivery.answer_for(case, profile)
    return isinstance(answer, PlanRefusal) and answer.reason in (Refusal.MODEL_MISMATCH, Refusal.NOT_PLANNABLE)
