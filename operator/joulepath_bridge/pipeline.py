"""A measured EnergyProfile as a pipeline: its points, what no clock changes, and the orders that the ranks run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from joulepath_crds import EnergyProfileSpec
from joulepath_planner import Instruction, Pipeline, Point, Profile, Schedule, recorded
from joulepath_planner.inputs.pipeline import Link

__all__ = ["pipeline_of", "profile_of", "tails_of", "transfers_of"]

_MOST_FIXED: Final = 0.9
"""Of a kind's seconds, whatever was measured since: something is left that clocks change."""


def profile_of(spec: EnergyProfileSpec, fixed_s: Mapping[tuple[int, str], float] = MappingProxyType({})) -> Profile:
    """Points up to the default clock, and the blocking power; all of one GPU.

    fixed_s: what of the measured seconds of a (stage, kind) no clock changes, as single instructions do it alone. It is
        left out, at blocking power.

    Raises:
        ProfileError: Nothing can be planned on what was measured.
    """
    top = spec.default_clock_mhz
    points = {
        (stage.stage, kind.kind): tuple(
            Point(
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
    found = Profile(points, waits or 0.0)
    if not fixed_s:
        return found
    changing = {
        kind: tuple(_without(point, fixed_s.get(kind, 0.0), found.wait_power_w(point.clock_mhz)) for point in series)
        for kind, series in found.points.items()
    }
    return replace(found, points=changing)


def _without(point: Point, fixed_s: float, wait_w: float) -> Point:
    fixed_s = min(fixed_s, _MOST_FIXED * point.time_s)
    watts = min(wait_w, point.energy_j / point.time_s)
    return replace(point, time_s=point.time_s - fixed_s, energy_j=point.energy_j - watts * fixed_s)


def transfers_of(spec: EnergyProfileSpec, planned: Schedule | None = None) -> dict[Link, float]:
    """Seconds from stage to stage as measured.

    planned: a schedule other than the measured one. What it has no stages for is left out, and gradients of whole
        backwards are those of input gradients where it runs these apart.
    """
    if planned is None:
        return {(one.from_stage, one.to_stage, one.kind): one.delay_s for one in spec.transfers}
    split = any(one.kind == "I" for order in planned.orders for one in order)
    return {
        (one.from_stage, one.to_stage, "I" if split and one.kind == "B" else one.kind): one.delay_s
        for one in spec.transfers
        if max(one.from_stage, one.to_stage) < planned.stages
    }


def tails_of(spec: EnergyProfileSpec, planned: Schedule | None = None) -> dict[int, float]:
    """Seconds of each stage's gradient reduction and optimizer. planned: as for transfers."""
    return {stage.stage: stage.tail_s for stage in spec.stages if planned is None or stage.stage < planned.stages}


def pipeline_of(
    spec: EnergyProfileSpec,
    orders: Sequence[Iterable[str]],
    *,
    profile: Profile,
    transfers_s: Mapping[Link, float],
    overheads_s: Mapping[tuple[int, str], float],
    tails_s: Mapping[int, float],
    gaps_s: Mapping[str, float] = MappingProxyType({}),
    extras_s: Mapping[str, float] = MappingProxyType({}),
) -> Pipeline:
    """The pipeline of the job that the profile was measured on. A stage runs on all its tensor-parallel peers together.

    orders: what each rank runs (`3:F0`), with marks where messages leave later and the like, as `recorded` reads them.
    profile: the points to plan on, such as those of `profile_of`, completed.
    transfers_s, overheads_s, tails_s: as seen since; they go before what was measured with the profile.
    gaps_s, extras_s: of single instructions (`3:B11`); the profile is then without those `fixed_s`.

    Raises:
        PlannerError: Profile, orders and delays make no pipeline.
    """
    return Pipeline(
        schedule=recorded(orders),
        profile=profile,
        transfer_s={**transfers_of(spec), **transfers_s},
        overhead_s=overheads_s,
        tail_s={**tails_of(spec), **tails_s},
        gpus=dict.fromkeys(range(spec.topology.stages), spec.topology.tensor_parallel),
        gap_s={Instruction.parse(label): seconds for label, seconds in gaps_s.items()},
        extra_s={Instruction.parse(label): seconds for label, seconds in extras_s.items()},
    )
