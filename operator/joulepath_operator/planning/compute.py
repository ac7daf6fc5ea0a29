"""What the planner is asked for a job, and what its answer means: a measured profile in, the clocks of each stage out.

`compute` runs in a process of its own (`pool`, `child`); all that goes in and comes out are plain values. Before it
believes the model it replays default clocks and compares with what the job measures: a model that is off by more than
1% and the noise of that measurement plans for another job. Figures are joules of the whole job: those of one pipeline
times its replicas.

The clocks that were not measured are filled in, and all is planned and told by what is likely: of measured points a
plan picks the lucky ones, and would promise more than it keeps. Where too little is known, the plan has a reserve.
"""

from __future__ import annotations

from typing import Final

import joulepath_planner as planner
from joulepath_bridge.lags import lags_or_assumed
from joulepath_bridge.pipeline import pipeline_of, profile_of
from joulepath_bridge.stages import stage_plans
from joulepath_crds import FrontierPoint, Granularity
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.facts.request import PlanRefusal, PlanRequest, PlanResult

__all__ = ["compute"]

_MISMATCH: Final = 0.01
"""How far the simulated iteration may be from the measured one, beyond the noise of that."""
_MOST_NOISE: Final = 0.02
"""Noise of a job's iterations that is allowed for: of one that varies more, too little is known to plan for it."""
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
_FRONTIER_POINTS: Final = 33


def compute(request: PlanRequest) -> PlanResult | PlanRefusal:
    """Plans; whatever rules a plan out comes back as a refusal. Takes seconds."""
    default_mhz = request.profile.default_clock_mhz
    try:
        fitted = planner.fit(profile_of(request.profile), request.supported_clocks_mhz)
        noise = min(_MOST_NOISE, request.profile.iteration_time_noise_s / request.control_time_s)
        allowed = _MISMATCH + noise
        # What the curves take for an outlier may be what this GPU does: then the job takes what was measured.
        pipelines = [_pipeline(request, profile) for profile in (fitted.likely, fitted.profile)]
        seconds = [planner.simulate(one).iteration_time_s for one in pipelines]
        near = [abs(simulated_s / request.control_time_s - 1) <= allowed for simulated_s in seconds]
        if not any(near):
            return PlanRefusal(
                Refusal.MODEL_MISMATCH,
                f"The model takes {seconds[0]:.4f} s for an iteration at default clocks, the job "
                f"{request.control_time_s:.4f} s: more than {allowed:.1%} apart ({_MISMATCH:.0%} and what the job's "
                "own iterations vary by), a plan would be for another job. Something else slows the job (data loading, "
                "checkpoints, a neighbour): remove it, then restart the job or change the EnergyPlan's spec.",
            )
        pipeline = pipelines[near.index(True)]
        granularity = request.granularity
        if granularity is Granularity.AUTO and request.profile.topology.stages == 1:
            # No slack is to be used up to the last: finer clocks would save a point more, by many more switches.
            granularity = Granularity.KIND
        elif granularity is Granularity.AUTO and request.lag is None:
            granularity = Granularity.PHASE

        def made(on: planner.Pipeline, reserve: float) -> planner.Plan:
            return planner.plan(
                on,
                slowdown=request.max_slowdown,
                granularity=granularity.value,
                lags=lags_or_assumed(request.lag, default_mhz),
                default_clock_mhz=default_mhz,
                reserve=reserve,
            )

        reserve = _RESERVE + max(0.0, noise - _CALM) + request.reserve
        if near[0]:
            plan = planner.sure_plan(pipeline, fitted, made, margin=_LATE, reserve=reserve).plan
        else:
            plan = made(pipeline, reserve)
        frontier = planner.frontier(pipeline, _FRONTIER_POINTS, default_clock_mhz=default_mhz)
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
        frontier=tuple(
            FrontierPoint(iteration_time_s=point.iteration_time_s, lower_bound_j=point.energy_j * replicas)
            for point in frontier.points
        ),
        control_time_s=request.control_time_s,
        plan_time_s=plan.iteration_time_s * request.control_time_s / plan.t_min_s,
    )


def _pipeline(request: PlanRequest, profile: planner.Profile) -> planner.Pipeline:
    return pipeline_of(
        request.profile,
        request.orders,
        profile=profile,
        transfers_s=request.delays.transfers_s,
        overheads_s=request.delays.overheads_s,
        tails_s=request.delays.tails_s,
    )
