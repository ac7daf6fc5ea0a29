"""The model that is planned on: the job's pipeline, on a profile that is completed to the clocks that weren't measured.

Before it is believed, default clocks are replayed and compared with what the job measures: a model that is off by more
than 1% and the noise of that measurement plans for another job.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import joulepath_planner as planner
from joulepath_bridge.pipeline import pipeline_of, profile_of
from joulepath_crds import EnergyProfileSpec, ProfilePoint
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.facts.request import PlanRefusal, PlanRequest, SurveyRequest

__all__ = ["Model", "modelled", "pipeline_on"]

_MISMATCH: Final = 0.01
"""How far the simulated iteration may be from the measured one, beyond the noise of that."""
_MOST_NOISE: Final = 0.02
"""Noise of a job's iterations that is allowed for: of one that varies more, too little is known to plan for it."""
_WILD: Final = 3.0
"""How many times more than the clock explains seconds or watts of a point may be, or less than at the default clock:
beyond that something else ran in its block."""


@dataclass(frozen=True, slots=True)
class Model:
    """noise: of the job's iterations, as a fraction. likely: whether the pipeline is on what is likely; else what the
    curves take for outliers is what this job does. remarks: what was left out."""

    pipeline: planner.Pipeline
    fitted: planner.Fit
    noise: float
    likely: bool
    remarks: tuple[str, ...]


def modelled(request: PlanRequest) -> Model | PlanRefusal:
    """The model, or by how much it is off.

    Raises:
        PlannerError: Nothing can be planned on what was measured.
    """
    spec, remarks = _without_wild_points(request.profile)
    fitted = planner.fit(profile_of(spec, request.delays.fixed_s), request.supported_clocks_mhz)
    noise = min(_MOST_NOISE, spec.iteration_time_noise_s / request.control_time_s)
    allowed = _MISMATCH + noise
    # What the curves take for an outlier may be what this GPU does: then the job takes what was measured.
    pipelines = [pipeline_on(request, profile) for profile in (fitted.likely, fitted.profile)]
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
    if odd := request.delays.odd:
        remarks = (
            *remarks,
            f"{odd} of {len(request.iterations)} pipelines that were looked at exchange messages otherwise than the "
            "others, or were disturbed.",
        )
    return Model(pipelines[near.index(True)], fitted, noise, near[0], remarks)


def pipeline_on(request: PlanRequest | SurveyRequest, profile: planner.Profile) -> planner.Pipeline:
    """The job's pipeline with the delays as learnt, on what was made of its profile."""
    return pipeline_of(
        request.profile,
        request.orders,
        profile=profile,
        transfers_s=request.delays.transfers_s,
        overheads_s=request.delays.overheads_s,
        tails_s=request.delays.tails_s,
        gaps_s=request.delays.gaps_s,
        extras_s=request.delays.extras_s,
    )


def _without_wild_points(spec: EnergyProfileSpec) -> tuple[EnergyProfileSpec, tuple[str, ...]]:
    """The profile without points that no clock explains, and a sentence of what they were."""
    left_out: list[str] = []
    stages = []
    for stage in spec.stages:
        kinds = []
        for kind in stage.kinds:
            sound = _sound(kind.points)
            left_out += [f"stage {stage.stage} {kind.kind} at {p.clock_mhz} MHz" for p in kind.points if p not in sound]
            kinds.append(kind.model_copy(update={"points": sound}))
        stages.append(stage.model_copy(update={"kinds": tuple(kinds)}))
    if not left_out:
        return spec, ()
    some = ", ".join(left_out[:3]) + (f" and {len(left_out) - 3} more" if len(left_out) > 3 else "")
    remark = f"Left out, as seconds or watts there are beyond what a clock explains: {some}."
    return spec.model_copy(update={"stages": tuple(stages)}), (remark,)


def _sound(points: Sequence[ProfilePoint]) -> tuple[ProfilePoint, ...]:
    """All, where the default clock itself is what nothing explains."""
    if not points:
        return ()
    top = max(points, key=lambda one: one.clock_mhz)
    top_w = top.energy_j / top.time_s

    def is_sound(one: ProfilePoint) -> bool:
        slower = one.time_s / top.time_s
        hotter = one.energy_j / one.time_s / top_w if top_w > 0 else 1.0
        return 1 / _WILD <= slower <= _WILD * top.clock_mhz / one.clock_mhz and hotter <= _WILD

    sound = tuple(filter(is_sound, points))
    return sound if len(sound) > 1 else tuple(points)
