"""What a switch of clock costs by itself, from what it cost a job to switch at each instruction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from joulepath_crds import SwitchingCost
from joulepath_planner import LagTable, Pipeline, Referee
from joulepath_planner.inputs.schedule import Clocks

__all__ = ["Pause", "pause_of"]

_ROUNDS: Final = 5
"""Of halving what is between two pauses, one of them twice the other."""
_LONGEST: Final = 100
"""Times what an iteration lasts longer, that a pause may be: what waits hide is no matter of so much."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Seconds for which a GPU's work stands still at a switch, and half their 95% interval."""

    seconds: float
    half_s: float

    @property
    def planned_s(self) -> float:
        """What to plan with: none where it can't be told from the job's own noise."""
        return self.seconds if self.seconds > self.half_s else 0.0


def pause_of(cost: SwitchingCost, pipeline: Pipeline) -> Pause | None:
    """The pause with which the referee finds the same cost; None where switches as they were tried hold nobody up.

    Not each pause makes an iteration longer: on most ranks something else is waited for meanwhile.
    """
    looked_for_s = max(cost.longer_s, cost.longer_half_s)
    if not looked_for_s:
        return Pause(0.0, 0.0)
    referee, clocks, lags = Referee(pipeline), _to_and_fro(pipeline), LagTable.constant(0.0)

    def takes_s(pause_s: float) -> float:
        return referee.replay(clocks, replace(lags, pause_s=pause_s)).iteration_time_s

    wanted_s = takes_s(0.0) + looked_for_s
    high_s = looked_for_s / max(map(len, clocks))
    while takes_s(high_s) < wanted_s:
        high_s *= 2
        if high_s > _LONGEST * looked_for_s:
            return None
    low_s = high_s / 2
    for _ in range(_ROUNDS):
        pause_s = (low_s + high_s) / 2
        low_s, high_s = (pause_s, high_s) if takes_s(pause_s) < wanted_s else (low_s, pause_s)
    share = high_s / looked_for_s
    return Pause(cost.longer_s * share, cost.longer_half_s * share)


def _to_and_fro(pipeline: Pipeline) -> Clocks:
    """Between the default clock and the next lower one of the profile, from each instruction to the next."""
    profile, rows = pipeline.profile, []
    for order in pipeline.schedule.orders:
        stages, top_mhz = {one.stage for one in order}, profile.default_clock_mhz(order[0].stage)
        known = {one.clock_mhz for (stage, _), points in profile.points.items() if stage in stages for one in points}
        below_mhz = max(clock for clock in known if clock < top_mhz)
        rows.append(tuple((None, below_mhz)[place % 2] for place in range(len(order))))
    return tuple(rows)
