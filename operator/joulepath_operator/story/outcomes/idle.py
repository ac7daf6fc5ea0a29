"""A job without a pipeline of which no plan saves anything at the slowdown that is allowed: what more of it would buy.

No GPU of it waits for another: any lower clock makes its iterations longer. They keep their default clocks, and nothing
is sent to the nodes, until the user allows more or the job starts anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from joulepath_crds import POLICY_NAME, FrontierPoint, Phase, PlanSummary
from joulepath_operator.facts.observation import Decision, StoredProfile
from joulepath_operator.facts.request import PlanResult
from joulepath_operator.story.case import ReadyCase

__all__ = ["begin", "go_on", "is_idle"]

_REASON: Final = "NothingToSave"
_OFFERS: Final = (0.02, 0.05, 0.1)
"""Slowdowns of which the status tells what they would buy."""
_SHOWN: Final = 0.05
"""That of them which `kubectl get` shows."""


def is_idle(case: ReadyCase, result: PlanResult) -> bool:
    """Whether it is such a job, and all clocks of its plan are default ones."""
    alone = case.enforce and case.topology.stages == 1
    return alone and not any(any(stage.clocks_mhz) for stage in result.stages)


def go_on(case: ReadyCase, profile: StoredProfile) -> Decision | None:
    """As it was, where nothing has changed since; None where the planner has to be asked."""
    base = case.story.base
    if base.phase is not Phase.IDLE or not case.unchanged or base.profile != profile.name:
        return None
    status = case.story.end(Phase.IDLE, base.message, progress=base.progress, carry=("Planned", "Active"))
    return Decision(status, delete_plans=case.all_plans)


def begin(case: ReadyCase, summary: PlanSummary, frontier: Sequence[FrontierPoint]) -> Decision:
    """Says that nothing is saved, why, and what more slowdown would buy."""
    allowed = case.allowed_slowdown
    offers = [one for one in _OFFERS if one > allowed] or [min(0.5, 2 * allowed)]
    told = ", ".join(f"{_savings_at(one, summary, frontier):.1%} with {one * 100:g}" for one in offers)
    message = (
        "This job has no pipeline: no GPU waits for another, and any lower clock makes an iteration longer. With "
        f"spec.maxSlowdownPercent at {allowed * 100:g} nothing is saved, and all GPUs run default clocks. "
        f"More of it would save up to {told} (all of it: status.frontier). Set it to what the job may lose in time."
    )
    if (most := case.seen.policy.max_slowdown_percent) is not None:
        message += f" EnergyPolicy {POLICY_NAME} allows {most:g} at most."
    shown = _SHOWN if _SHOWN in offers else offers[0]
    case.story.note(measured=None, savings=None)
    case.story.tell("Planned", False, _REASON, message)
    case.story.tell("Active", False, _REASON, "All GPUs run default clocks.")
    progress = f"{_savings_at(shown, summary, frontier):.1%} at +{shown * 100:g}%"
    return Decision(case.story.end(Phase.IDLE, message, progress=progress), delete_plans=case.all_plans)


def _savings_at(slowdown: float, summary: PlanSummary, frontier: Sequence[FrontierPoint]) -> float:
    """What may be saved at most, as a fraction, where an iteration may last so much longer."""
    time_s = summary.t_min_s * (1 + slowdown)
    least_j = min((one.lower_bound_j for one in frontier if one.iteration_time_s <= time_s), default=summary.baseline_j)
    for before, after in pairwise(frontier):
        if before.iteration_time_s <= time_s < after.iteration_time_s:
            share = (time_s - before.iteration_time_s) / (after.iteration_time_s - before.iteration_time_s)
            least_j = before.lower_bound_j + share * (after.lower_bound_j - before.lower_bound_j)
    return max(0.0, 1 - least_j / summary.baseline_j)
