"""What the planner is asked for a job, and what its answer means: a measured profile in, the clocks of each stage out.

`compute` runs in a process of its own (`pool`, `child`); all that goes in and comes out are plain values. Figures are
joules of the whole job: those of one pipeline times its replicas.

The clocks that were not measured are filled in, and all is planned and told by what is likely: of measured points a
plan picks the lucky ones, and would promise more than it keeps. Where too little is known, the plan has a reserve.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import joulepath_planner as planner
from joulepath_bridge.lags import lags_or_assumed
from joulepath_bridge.stages import stage_plans
from joulepath_bridge.switching import Pause, pause_of
from joulepath_crds import Granularity
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.facts.request import PlanRefusal, PlanRequest, PlanResult
from joulepath_operator.planning.frontier import points_of
from joulepath_operator.planning.model import Model, modelled

__all__ = ["compute", "made_sure", "switching_of"]

_RESERVE: Final = 0.001
"""How much longer than measured a slowed instruction may last without delaying the iteration: a plan uses up slack, so
that many paths are nearly critical and the longest of them, with the host's jitter, is late a little. On GPT-3's
profile it costs 0.05 points of savings with 12 microbatches, 0.16 with 96."""
_CALM: Final = 0.01
"""Noise of a job's iterations for which that is enough. At default clocks slack covers most stalls of one rank or
another; under a plan nothing does but a reserve, so what a job's iterations vary by beyond this is added to it."""
_LATE: Final = 0.0025
"""How much later than asked for a plan may be where the profile is a standard error worse than likely. On drawn
profiles (`make bench-fit`) none is then late by more than 0.51% with every clock measured, than 0.87% with six."""


def switching_of(request: PlanRequest, model: Model) -> tuple[planner.LagTable, Pause | None]:
    """What switches of clock take, and what one costs by itself where that was tried.

    Raises:
        PlannerError: The pipeline can't be replayed.
    """
    cost, lags = request.profile.switching, lags_or_assumed(request.lag, request.profile.default_clock_mhz)
    if cost is None or request.profile.topology.stages == 1:
        return lags, None
    switch = pause_of(cost, model.pipeline)
    return (lags if switch is None else replace(lags, pause_s=switch.planned_s)), switch


def made_sure(request: PlanRequest, model: Model, lags: planner.LagTable, until_s: float | None = None) -> planner.Plan:
    """The plan of a model, in time also where its profile is a little off. until_s: the iteration lasts until then, as
    another pipeline is slower; None: the slowdown that is allowed.

    Raises:
        PlannerError: There is none.
    """
    granularity, default_mhz = request.granularity, request.profile.default_clock_mhz
    if granularity is Granularity.AUTO and request.profile.topology.stages == 1:
        # No slack is to be used up to the last: finer clocks would save a point more, by many more switches.
        granularity = Granularity.KIND
    elif granularity is Granularity.AUTO and request.lag is None:
        granularity = Granularity.PHASE

    def made(on: planner.Pipeline, reserve: float) -> planner.Plan:
        return planner.plan(
            on,
            deadline_s=until_s,
            slowdown=request.max_slowdown if until_s is None else 0.0,
            fixed=until_s is not None,
            granularity=granularity.value,
            lags=lags,
            default_clock_mhz=default_mhz,
            reserve=reserve,
        )

    reserve = _RESERVE + max(0.0, model.noise - _CALM) + request.reserve
    if model.likely:
        return planner.sure_plan(model.pipeline, model.fitted, made, margin=_LATE, reserve=reserve).plan
    return made(model.pipeline, reserve)


def compute(request: PlanRequest) -> PlanResult | PlanRefusal:
    """Plans; whatever rules a plan out comes back as a refusal. Takes seconds."""
    default_mhz, alone = request.profile.default_clock_mhz, request.profile.topology.stages == 1
    try:
        model = modelled(request)
        if isinstance(model, PlanRefusal):
            return model
        lags, switch = switching_of(request, model)
        plan = made_sure(request, model, lags)
        # Without a pipeline it takes no time, and may be all that there is to tell.
        frontier = points_of(request, model) if alone else ()
    except planner.PlannerError as error:
        return PlanRefusal(Refusal.NOT_PLANNABLE, f"The planner refuses: {str(error).rstrip('.')}.")
    replicas = request.profile.topology.data_parallel
    return PlanResult(
        stages=stage_plans(plan, default_mhz),
        # Where no plan saves anything, all clocks are default ones: one clock a rank.
        granularity=Granularity.RANK if plan.granularity == "default" else Granularity(plan.granularity),
        t_min_s=plan.t_min_s,
        iteration_time_s=plan.iteration_time_s,
        baseline_j=plan.baseline_energy_j * replicas,
        energy_j=plan.energy_j * replicas,
        lower_bound_j=plan.lower_bound_j * replicas,
        predicted_savings=plan.predicted_savings,
        bound_savings=plan.bound_savings,
        frontier=frontier,
        control_time_s=request.control_time_s,
        plan_time_s=plan.iteration_time_s * request.control_time_s / plan.t_min_s,
        remarks=model.remarks,
        delays=request.delays,
        switch_s=None if switch is None else switch.planned_s,
        switch_half_s=None if switch is None else switch.half_s,
    )
