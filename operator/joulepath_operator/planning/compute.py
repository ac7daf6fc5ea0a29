"""The one place where the contract's words meet the planner's: a measured profile in, the clocks of each stage out.

`compute` runs in a process of its own (`pool`, `child`); all that goes in and comes out are plain values. Before it
believes the model it replays default clocks and compares with what the job measures: a model that is off by more than
1% and the noise of that measurement plans for another job. Figures are joules of the whole job: those of one pipeline
times its replicas.
"""

from __future__ import annotations

from typing import Final

import joulepath_planner as planner
from joulepath_crds import FrontierPoint, Granularity, StagePlan, SwitchingLag
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.facts.request import PlanRefusal, PlanRequest, PlanResult

__all__ = ["compute"]

_MISMATCH: Final = 0.01
"""How far the simulated iteration may be from the measured one, beyond the noise of that."""
_MOST_NOISE: Final = 0.02
"""Noise of a job's iterations that is allowed for: of one that varies more, too little is known to plan for it."""
_ASSUMED_LAG_S: Final = 0.1
"""The lag planned for where none was measured: slow for a data-centre GPU (arXiv 2502.20075), hence safe."""
_RESERVE: Final = 0.001
"""How much longer than measured a slowed instruction may last without delaying the iteration: a plan uses up slack, so
that many paths are nearly critical and the longest of them, with the host's jitter, is late a little. On GPT-3's
profile it costs 0.05 points of savings with 12 microbatches, 0.16 with 96."""
_FRONTIER_POINTS: Final = 33


def compute(request: PlanRequest) -> PlanResult | PlanRefusal:
    """Plans; whatever rules a plan out comes back as a refusal. Takes seconds."""
    topology = request.profile.topology
    try:
        pipeline = _pipeline(request)
        simulated_s = planner.simulate(pipeline).iteration_time_s
        allowed = _MISMATCH + min(_MOST_NOISE, request.profile.iteration_time_noise_s / request.control_time_s)
        if abs(simulated_s / request.control_time_s - 1) > allowed:
            return PlanRefusal(
                Refusal.MODEL_MISMATCH,
                f"The model takes {simulated_s:.4f} s for an iteration at default clocks, the job "
                f"{request.control_time_s:.4f} s: more than {allowed:.1%} apart ({_MISMATCH:.0%} and what the job's "
                "own iterations vary by), a plan would be for another job. Something else slows the job (data loading, "
                "checkpoints, a neighbour): remove it, then restart the job or change the EnergyPlan's spec.",
            )
        lags = _lags(request.lag)
        granularity = request.granularity
        if request.lag is None and granularity is Granularity.AUTO:
            granularity = Granularity.PHASE
        plan = planner.plan(
            pipeline,
            slowdown=request.max_slowdown,
            granularity=granularity.value,
            lags=lags,
            default_clock_mhz=topology.default_clock_mhz,
            reserve=_RESERVE,
        )
        frontier = planner.frontier(pipeline, _FRONTIER_POINTS, default_clock_mhz=topology.default_clock_mhz)
    except (planner.ProfileError, planner.ScheduleError, planner.PlanningError, ValueError) as error:
        return PlanRefusal(Refusal.NOT_PLANNABLE, f"The planner refuses: {str(error).rstrip('.')}.")
    replicas = topology.data_parallel
    return PlanResult(
        stages=_stages(plan, topology.default_clock_mhz),
        # Where no plan saves anything, all clocks are default ones: one clock a rank.
        granularity=Granularity.RANK if plan.granularity == "default" else Granularity(plan.granularity),
        t_min_s=simulated_s,
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
        plan_time_s=plan.iteration_time_s * request.control_time_s / simulated_s,
    )


def _pipeline(request: PlanRequest) -> planner.Pipeline:
    """A stage runs on all its tensor-parallel peers together."""
    spec = request.profile
    top = spec.topology.default_clock_mhz
    points = {
        (stage.stage, kind.kind): tuple(
            planner.Point(
                clock_mhz=point.clock_mhz,
                time_s=point.time_s,
                energy_j=point.energy_j,
                time_se_s=point.time_standard_error_s,
                energy_se_j=point.energy_standard_error_j,
            )
            for point in kind.points
            if point.clock_mhz <= top
        )
        for stage in spec.stages
        for kind in stage.kinds
    }
    waits: dict[int, float] = {one.clock_mhz: one.power_w for one in spec.blocking_power}
    # A job whose ranks never wait has no blocking power; none counted, slowing is thought less worth than it is.
    measured = planner.Profile(points, waits or 0.0)
    profile = planner.fit(measured, request.supported_clocks_mhz).profile
    orders = [[planner.Instruction.parse(label) for label in order] for order in request.orders]
    stored = {(one.from_stage, one.to_stage, one.kind): one.delay_s for one in spec.transfers}
    tails = {stage.stage: stage.tail_s for stage in spec.stages}
    return planner.Pipeline(
        schedule=planner.recorded(orders),
        profile=profile,
        transfer_s={**stored, **request.delays.transfers_s},
        overhead_s=request.delays.overheads_s,
        tail_s={**tails, **request.delays.tails_s},
        gpus=dict.fromkeys(range(spec.topology.stages), spec.topology.tensor_parallel),
    )


def _lags(lag: SwitchingLag | None) -> planner.LagTable:
    if lag is None:
        return planner.LagTable.constant(_ASSUMED_LAG_S)
    return planner.LagTable(lag.up_median_s, lag.down_median_s, lag.up_p95_s, lag.down_p95_s)


def _stages(plan: planner.Plan, default_mhz: int) -> tuple[StagePlan, ...]:
    by_stage: dict[int, list[planner.PlannedInstruction]] = {}
    for rank in plan.ranks:
        for one in rank.instructions:
            by_stage.setdefault(one.instruction.stage, []).append(one)
    return tuple(
        StagePlan(
            stage=stage,
            order=tuple(str(one.instruction) for one in planned),
            clocks_mhz=tuple(0 if one.clock_mhz in (None, default_mhz) else one.clock_mhz or 0 for one in planned),
            # Six digits: an object of the API holds 1.5 MB, and a large pipeline has tens of thousands of them.
            durations_s=tuple(float(f"{one.duration_s:.6g}") for one in planned),
        )
        for stage, planned in sorted(by_stage.items())
    )
