"""How far pipelines of a job may be stretched while others of it are held up, and what that saves.

Those that are held up determine the time of an iteration. The plan that all play uses up slack which they may need
themselves: of a pipeline with one slow rank, others of its ranks were late by up to 7% with it. So the referee replays
it with what is slow there. Where it takes longer than is allowed over default clocks, such a pipeline has these. It
never gets a plan of its own, as it must be as fast as ever once it has recovered. All others get the plan of least
energy for the time that the slowest takes, T_opt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import joulepath_planner as planner
from joulepath_bridge.stages import stage_plans
from joulepath_crds import StretchedStage
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.facts.request import PlanRefusal, StretchRequest, StretchResult
from joulepath_operator.planning.compute import made_sure, switching_of
from joulepath_operator.planning.model import modelled
from joulepath_planner.inputs.schedule import Clocks

__all__ = ["stretch"]

_SAME: Final = 0.001
"""As a fraction: a plan that takes so much longer is as fast. Lags and rounding are in it."""
_WORTH_IT: Final = 0.005
"""As a fraction of the job's energy: what less than that is saved isn't worth two changes of plans."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A pipeline that is held up: seconds of its iteration at default clocks and with the plan that all play."""

    factors: Mapping[int, float]
    default_s: float
    plan_s: float


def stretch(request: StretchRequest) -> StretchResult | PlanRefusal:
    """Takes a little longer than a plan."""
    try:
        model = modelled(request.plan)
        if isinstance(model, PlanRefusal):
            return model
        default_mhz = request.plan.profile.default_clock_mhz
        lags, _ = switching_of(request.plan, model)
        pipeline = model.pipeline.capped(default_mhz)
        clocks = _clocks(pipeline, request)

        def replayed(
            clocks: Clocks | None, factors: Mapping[int, float], pace_s: float | None = None
        ) -> planner.Simulation:
            slow = (lambda _, one: factors.get(one.stage, 1.0)) if factors else None
            return planner.simulate(pipeline, clocks, lags, pace_s=pace_s, stretch=slow)

        held = {
            replica: _Held(
                factors,
                replayed(None, factors).iteration_time_s,
                replayed(clocks, factors).iteration_time_s,
            )
            for replica, factors in request.slow.items()
        }
        control_s, usual_s = max(one.default_s for one in held.values()), replayed(clocks, {}).iteration_time_s
        # A plan that is a little late by what is known since is so here as well.
        late = max(1 + request.plan.max_slowdown, usual_s / replayed(None, {}).iteration_time_s)
        limit_s = control_s * late * (1 + _SAME)
        at_default = {replica for replica, one in held.items() if one.plan_s > limit_s}
        times = {replica: one.default_s if replica in at_default else one.plan_s for replica, one in held.items()}
        until_s = max(usual_s, *times.values())
        plan = made_sure(request.plan, model, lags, until_s)
        free = request.plan.profile.topology.data_parallel - len(held)
        default_j = sum(replayed(None, one.factors, control_s).energy_j for one in held.values())
        held_j = sum(
            replayed(None if replica in at_default else clocks, one.factors, until_s).energy_j
            for replica, one in held.items()
        )
        baseline_j = free * replayed(None, {}, control_s).energy_j + default_j
        unstretched, stretched = (
            1 - (free * replayed(played, {}, until_s).energy_j + held_j) / baseline_j
            for played in (clocks, plan.clocks)
        )
    except planner.PlannerError as error:
        return PlanRefusal(Refusal.NOT_PLANNABLE, f"The planner refuses: {str(error).rstrip('.')}.")
    measured = request.plan.control_time_s / plan.t_min_s
    is_worth_it = bool(at_default) or stretched > unstretched + _WORTH_IT
    return StretchResult(
        stages=tuple(
            StretchedStage(stage=one.stage, clocks_mhz=one.clocks_mhz, durations_s=one.durations_s)
            for one in (stage_plans(plan, default_mhz) if is_worth_it else ())
        ),
        default_replicas=tuple(sorted(at_default)),
        control_time_s=control_s * measured,
        plan_time_s=until_s * measured,
        predicted_savings=stretched,
        predicted_unstretched=unstretched,
    )


def _clocks(pipeline: planner.Pipeline, request: StretchRequest) -> Clocks:
    """Of the plan that all play, as the referee takes them."""
    of = {
        (stage.stage, label): clock or None
        for stage in request.stages
        for label, clock in zip(stage.order, stage.clocks_mhz, strict=True)
    }
    return tuple(tuple(of[one.stage, str(one)] for one in order) for order in pipeline.schedule.orders)
