"""A plan that is slower than allowed is taken back, and another one is made with a larger reserve, a few times.

What was taken back stands in the EnergyPlan's status, before anything is deleted: an operator that is killed in between
finds it there, and no plan is sent twice. After the third, GPUs keep their default clocks until the job restarts or the
EnergyPlan's spec changes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from joulepath_crds import MARGIN, Estimate, JobPlanSpec, Phase, RankReport, WithdrawnPlan
from joulepath_operator.facts.observation import Decision, Notice
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.figures.savings import figure, measured_savings
from joulepath_operator.story.case import Case

__all__ = [
    "SLOW_PLAN",
    "excessive_slowdown",
    "give_up",
    "in_words",
    "is_withdrawn",
    "reserve",
    "tell",
    "withdraw",
]

SLOW_PLAN: Final = "SlowPlan"
"""An agent's word for a plan that its own pairs of blocks find slower than allowed."""
_WITHDRAWN: Final = "PlanWithdrawn"
_TRIES: Final = 3
_RECENT: Final = 32
"""Pairs that are looked at: what has become slow since yesterday isn't hidden by what was well before."""
_EAGER: Final = 1.5
"""How much more reserve than a plan is late: it lengthens slowed instructions only, and not all of them count."""
_LEAST_MORE: Final = 0.005
_MOST_RESERVE: Final = 0.3
_KEPT: Final = 16
_AGAIN_S: Final = 1.0


def excessive_slowdown(case: Case, spec: JobPlanSpec, ranks: tuple[RankReport, ...]) -> Estimate | None:
    """The slowdown of a plan, where its 95% interval is beyond what is allowed and the margin; None if it isn't."""
    measured = measured_savings(spec.hash, ranks, newest=_RECENT, join=case.join)
    if measured is None or measured.slowdown.ci95_low <= case.allowed_slowdown + MARGIN:
        return None
    return measured.slowdown


def is_withdrawn(case: Case, plan_hash: str) -> bool:
    return any(one.hash == plan_hash for one in case.story.base.withdrawn)


def reserve(case: Case) -> float:
    """What plans of this run have to keep beside what any plan does."""
    return max((one.reserve for one in case.story.base.withdrawn), default=0.0)


def withdraw(case: Case, plan_hash: str, slowdown: Estimate | None, why: str) -> Decision:
    """Takes a plan back; `why` is a sentence with the figures, `slowdown` None where they are not known here."""
    excess = slowdown.mean - case.allowed_slowdown if slowdown is not None else 0.0
    more = min(_MOST_RESERVE, reserve(case) + max(_LEAST_MORE, _EAGER * excess))
    one = WithdrawnPlan(hash=plan_hash, generation=case.seen.generation, slowdown=slowdown, reserve=figure(more))
    withdrawn = (*case.story.base.withdrawn, one)[-_KEPT:]
    case.story.note(withdrawn=withdrawn)
    tried = sum(each.generation == one.generation for each in withdrawn)
    if tried >= _TRIES:
        return give_up(case, why)
    message = f"{why} It is withdrawn, all GPUs run default clocks; another one is made with a reserve of {more:.1%}."
    case.story.tell("Planned", False, _WITHDRAWN, message)
    case.story.tell("Active", False, _WITHDRAWN, message)
    case.story.tell("Degraded", True, _WITHDRAWN, message)
    status = case.story.end(Phase.PROFILING, message, carry=("Injected", "Profiled"))
    return Decision(status, delete_plans=case.all_plans, notice=Notice(_WITHDRAWN, message), requeue_after_s=_AGAIN_S)


def give_up(case: Case, why: str) -> Decision:
    """No further plan is tried."""
    message = (
        f"{why} So were the plans before it, each made with a larger reserve: all GPUs run default clocks. Allow more "
        "slowdown (spec.maxSlowdownPercent) or choose a coarser spec.granularity (phase or rank), which tries again; "
        "or restart the job with spec.profiling.reuse set to false, which measures it anew."
    )
    decision = case.refuse(Refusal.SLOWER_THAN_ALLOWED, message, condition="Active")
    return replace(decision, notice=Notice(Refusal.SLOWER_THAN_ALLOWED, message))


def in_words(case: Case, slowdown: Estimate) -> str:
    """How slow a plan is, and how slow it may be."""
    return (
        f"With the plan iterations last {slowdown.mean:.2%} longer than at default clocks (95%: {slowdown.ci95_low:.2%}"
        f" to {slowdown.ci95_high:.2%}); {case.allowed_slowdown:.2%} are allowed, and {MARGIN:.1%} as a margin."
    )


def tell(case: Case) -> None:
    """That the plan to come takes the place of one that was withdrawn, until it is in force."""
    if case.story.base.phase is not Phase.ACTIVE and (more := reserve(case)):
        what = f"A plan was slower than allowed and is withdrawn; the next one has a reserve of {more:.1%}."
        case.story.tell("Degraded", True, _WITHDRAWN, what)
