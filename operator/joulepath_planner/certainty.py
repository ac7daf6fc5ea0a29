"""How sure a plan is that was made on a completed profile, and a plan that is made surer where that is little.

A plan picks, of many clocks, those that seem fast and cheap: what was lucky in measuring is picked most, and what it
promises is more than it keeps. So a sure plan is made on what is likely instead, and any plan is judged by what its
clocks most likely take, and in every way that the truth may be (`Fit.draws`), beside default clocks in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from joulepath_planner.arguments import checked, quoted
from joulepath_planner.arrays import Floats
from joulepath_planner.errors import ArgumentError
from joulepath_planner.graph.graph import Graph, binding_wraps, least_period_s, path_lengths
from joulepath_planner.graph.network import Network
from joulepath_planner.inputs.curves import DRAWS
from joulepath_planner.inputs.fit import Fit
from joulepath_planner.inputs.pipeline import Pipeline
from joulepath_planner.inputs.schedule import Clocks
from joulepath_planner.plan import Plan
from joulepath_planner.referee.replay import simulate

__all__ = ["Certainty", "SurePlan", "certainty", "sure_plan"]

_SURE: Final = 2.0
"""For the stated bound the truth may be so many times as far from what is likely as it was drawn: the worst of 64 draws
is then five standard errors off. They are estimates from few points themselves."""
_EAGER: Final = 1.5, 6.0
"""How much more reserve than a plan is late, at first and at most: it lengthens slowed instructions only."""
_ENOUGH: Final = 0.1
"""The part of a margin that no further plan is made for."""
_TRIES: Final = 3
_TRIES_OF_LARGE: Final = 2
_LARGE: Final = 4000
"""Instructions from which on a plan takes seconds."""
_MOST_RESERVE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Certainty:
    """What a plan most likely is against default clocks, with standard errors: how much slower, and what it saves, as
    fractions. Clocks switch at once here.

    slowdown_at_most: hardly ever is it slower than this. Not so many standard errors: what slack hides of small errors
    it doesn't hide of large ones.
    """

    slowdown: float
    slowdown_se: float
    slowdown_at_most: float
    savings: float
    savings_se: float

    def beyond(self, allowed: float) -> float:
        """How much later it is than allowed, a multiple of default clocks' time, where the truth is a standard error
        worse."""
        return 1 + self.slowdown + self.slowdown_se - allowed


@dataclass(frozen=True, slots=True)
class SurePlan:
    """A plan on what is likely, how sure it is, and the reserve that it took.

    excess: how much later it is than the margin lets it, as a fraction, where the truth is a standard error worse; 0 or
    less where it stands that.
    """

    plan: Plan
    certainty: Certainty
    reserve: float
    excess: float


@checked
def certainty(pipeline: Pipeline, clocks: Clocks, fitted: Fit) -> Certainty:
    """Replay a plan's clocks and default clocks in every way that the truth may be.

    pipeline: on the completed or the likely profile of the fit. Of GPUs with a cap of their own, fit the profile
    `capped` by it: default clocks are the cap then.

    Raises:
        ArgumentError: The clocks are of other instructions than the schedule's, or of none that the fit has.
    """
    if [len(row) for row in clocks] != [len(order) for order in pipeline.schedule.orders]:
        raise ArgumentError("clocks are of another schedule; give one for each instruction of each rank.")
    graph, likely = Graph.of(pipeline), replace(pipeline, profile=fitted.likely)
    made = _iterations(likely, graph, fitted, clocks)
    default = _iterations(likely, graph, fitted, [[None] * len(row) for row in clocks])
    slowdowns, savings = made.times_s / default.times_s - 1, 1 - made.joules / default.joules
    return Certainty(
        float(slowdowns.mean()),
        float(slowdowns.std()),
        float((made.far_times_s / default.far_times_s).max()) - 1,
        float(savings.mean()),
        float(savings.std()),
    )


@checked
def sure_plan(
    pipeline: Pipeline, fitted: Fit, make: Callable[[Pipeline, float], Plan], *, margin: float, reserve: float = 0.0
) -> SurePlan:
    """A plan on what is likely, late by no more than a margin even where the truth is a standard error worse.

    pipeline: on any profile; the plan is made on the likely one, as luck has no part in what that promises. make: the
    plan of a pipeline for a reserve, which grows from `reserve` on until the plan stands that. After a few tries that
    which comes nearest is taken.

    Raises:
        PlannerError: `make` refuses, or its plan isn't of this pipeline.
    """
    likely, found = replace(pipeline, profile=fitted.likely), list[SurePlan]()
    for _ in range(_TRIES if len(Graph.of(pipeline).instructions) < _LARGE else _TRIES_OF_LARGE):
        made = make(likely, reserve)
        sure = certainty(likely, made.clocks, fitted)
        excess = sure.beyond((1 + margin) * made.deadline_s / made.t_min_s)
        found.append(SurePlan(made, sure, reserve, excess))
        if excess <= _ENOUGH * margin or reserve >= _MOST_RESERVE:
            break
        reserve = min(reserve + _more(found) * excess, _MOST_RESERVE)
    return min(found, key=lambda one: max(one.excess, 0.0))


def _more(found: Sequence[SurePlan]) -> float:
    """Reserve for each fraction that a plan is late: as the last step of it shows."""
    if len(found) > 1 and (less := found[-2].excess - found[-1].excess) > 0:
        return float(np.clip((found[-1].reserve - found[-2].reserve) / less, *_EAGER))
    return _EAGER[0]


@dataclass(frozen=True, slots=True)
class _Iterations:
    """Seconds and joules of an iteration in every way that the truth may be, and seconds where it is farther off."""

    times_s: Floats
    joules: Floats
    far_times_s: Floats


def _iterations(pipeline: Pipeline, graph: Graph, fitted: Fit, clocks: Clocks) -> _Iterations:
    """A rank's waits are at their likely watts."""
    orders, profile = pipeline.schedule.orders, pipeline.profile
    columns = {
        key: {point.clock_mhz: place for place, point in enumerate(ones)} for key, ones in profile.points.items()
    }
    at = {
        one: clock or profile.default_clock_mhz(one.stage)
        for order, row in zip(orders, clocks, strict=True)
        for one, clock in zip(order, row, strict=True)
    }
    if odd := next((one for one, clock in at.items() if clock not in columns.get((one.stage, one.kind), ())), None):
        raise ArgumentError(
            f"{odd} has a clock of {quoted(at[odd])} MHz, which the fit hasn't; give the fit all clocks."
        )
    # Nothing where a rank never waits.
    waits_w = np.nan_to_num(simulate(pipeline, clocks).wait_power_w)
    wait_w = {one: float(watts) for order, watts in zip(orders, waits_w, strict=True) for one in order}
    seconds, expected, joules = np.empty((len(at), DRAWS)), np.empty((len(at), 1)), np.zeros(DRAWS)
    for node, one in enumerate(graph.instructions):
        key = one.stage, one.kind
        if key in fitted.draws:
            time_s, energy_j = (part[:, columns[key][at[one]]] for part in fitted.draws[key])
        else:
            time_s, energy_j = (np.full(DRAWS, value) for value in profile.at(*key, at[one]))
        seconds[node], expected[node] = time_s, profile.at(*key, at[one])[0]
        joules += pipeline.gpus.get(one.stage, 1) * (energy_j - wait_w[one] * time_s)
    periods_s = _periods_s(graph, seconds)
    idle_w = sum(pipeline.rank_gpus(rank) * float(watts) for rank, watts in enumerate(waits_w))
    far = np.maximum(expected + _SURE * (seconds - expected), expected / 2)
    return _Iterations(periods_s, joules + idle_w * periods_s, _periods_s(graph, far))


def _periods_s(graph: Graph, durations_s: Floats) -> Floats:
    """The least period of each column of durations."""
    mean = durations_s.mean(axis=1).tolist()
    wraps = binding_wraps(graph, mean, *path_lengths(graph, mean))
    if len(wraps) > 1:
        return np.array([least_period_s(graph, column) for column in durations_s.T.tolist()])
    network = Network(graph)
    floors = np.full((len(network.firsts), durations_s.shape[1]), -durations_s.sum())
    first = next(place for place, (_, node, _) in enumerate(graph.wraps) if node == 0)
    floors[first] = 0.0
    _, ends = network.starts_s(durations_s[network.nodes], floors)
    found: Floats = ends[network.lasts[first]] + network.wrap_gaps_s[first]
    return found
