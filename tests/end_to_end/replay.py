"""What the plan in force does, asked of a simulation of the job's own profile: the pace of the host isn't in that."""

from __future__ import annotations

from dataclasses import dataclass

from joulepath_bridge.pipeline import pipeline_of, profile_of
from joulepath_crds import EnergyProfileSpec
from joulepath_planner import LagTable, fit, simulate
from tests.end_to_end.product import LAG_S
from tests.end_to_end.watching import Recorder

__all__ = ["Replay", "replayed"]


@dataclass(frozen=True, slots=True)
class Replay:
    """Fractions of default clocks' energy and iteration time."""

    savings: float
    slowdown: float


def replayed(record: Recorder, energy_plan: str) -> Replay:
    """The clocks of the JobPlan that there is, on the EnergyProfile that it was made from."""
    plan, stored = record.plan(energy_plan), record.status(energy_plan).profile
    assert plan is not None
    assert stored is not None
    profile = EnergyProfileSpec.from_api(record.living("energyprofiles")[stored].body["spec"])
    supported = {point.clock_mhz for stage in profile.stages for kind in stage.kinds for point in kind.points}
    supported |= {clock for stage in plan.stages for clock in stage.clocks_mhz if clock}
    pipeline = pipeline_of(
        profile,
        [[f"{stage.stage}:{label}" for label in stage.order] for stage in plan.stages],
        profile=fit(profile_of(profile), supported).likely,
        transfers_s={},
        overheads_s={},
        tails_s={},
    )
    clocks = [[clock or None for clock in stage.clocks_mhz] for stage in plan.stages]
    default, planned = simulate(pipeline), simulate(pipeline, clocks, LagTable.constant(LAG_S))
    return Replay(1 - planned.energy_j / default.energy_j, planned.iteration_time_s / default.iteration_time_s - 1)
