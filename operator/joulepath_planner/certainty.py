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

from joulepath_planner.arrays import Floats
from joulepath_planner.graph.graph import Graph, binding_wraps, least_period_s, path_lengths
from joulepath_planner.graph.network import Network
from joulepath_planner.inputs.curves import DRAWS
from joulepath_planner.inputs.fit import Fit
from joulepath_planner.inputs.pipeline import Pipeline
from joulepath_planner.inputs.schedule import Clocks
from joulepath_planner.plan import Plan

__all__ = ["Certainty", "SurePlan", "certainty", "sure_plan"]

_SURE: Final = 3.0
"""Standard errors of the stated bound."""
_CAREFUL: Final = 1.0
"""Standard errors that a sure plan stands: five of six times it keeps its bound."""
_EAGER: Final = 1.5
"""How much more reserve than a plan is late: it lengthens slowed instructions only."""
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Certainty:
    """What a plan most likely is against default clocks, with standard errors: how much slower, and what it saves, as
    fractions. Clocks switch at once here."""

    slowdown: float
    slowdown_se: float
    savings: float
    savings_se: float

    @property
    def slowdown_at_most(self) -> float:
        """Hardly ever is it slower than this (three standard errors)."""
        return self.slowdown + _SURE * self.slowdown_se


@dataclass(frozen=True, slots=True)
class SurePlan:
    """A plan on what is likely, how sure it is, and the reserve that it took."""

    plan: Plan
    certainty: Certainty
    reserve: float


def certainty(pipeline: Pipeline, clocks: Clocks, fitted: Fit) -> Certainty:
    """Replay a plan's clocks and default clocks in every way that the truth may be.

    pipeline: on the completed or the likely profile of the fit.
    """
    graph = Graph.of(pipeline)
    planned = {
        one: clock
        for order, row in zip(pipeline.schedule.orders, clocks, strict=True)
        for one, clock in zip(order, row, strict=True)
    }
    times, joules = _iterations(pipeline, graph, fitted, [planned[one] for one in graph.instructions])
    default_times, default_joules = _iterations(pipeline, graph, fitted, [None] * len(graph.instructions))
    slowdowns, savings = times / default_times - 1, 1 - joules / default_joules
    return Certainty(float(slowdowns.mean()), float(slowdowns.std()), float(savings.mean()), float(savings.std()))


def sure_plan(
    pipeline: Pipeline, fitted: Fit, make: Callable[[Pipeline, float], Plan], *, margin: float, reserve: float = 0.0
) -> SurePlan:
    """A plan on what is likely, late by no more than a margin even where the truth is a standard error worse.

    pipeline: on any profile; the plan is made on the likely one, as luck has no part in what that promises. make: the
    plan of a pipeline for a reserve, which grows from `reserve` on until the plan stands that; after a few tries it is
    taken as it is.
    """
    likely = replace(pipeline, profile=fitted.likely)
    for _ in range(_TRIES):
        made = make(likely, reserve)
        sure = certainty(likely, made.clocks, fitted)
        excess = sure.slowdown + _CAREFUL * sure.slowdown_se - ((1 + margin) * made.deadline_s / made.t_min_s - 1)
        found = SurePlan(made, sure, reserve)
        if excess <= 0:
            break
        reserve += _EAGER * excess
    return found


def _iterations(pipeline: Pipeline, graph: Graph, fitted: Fit, clocks: Sequence[int | None]) -> tuple[Floats, Floats]:
    """(seconds, joules) of an iteration in every way that the truth may be."""
    profile = fitted.likely
    columns = {
        key: {point.clock_mhz: place for place, point in enumerate(ones)} for key, ones in profile.points.items()
    }
    seconds, joules = np.empty((len(clocks), DRAWS)), np.zeros(DRAWS)
    for node, (one, clock) in enumerate(zip(graph.instructions, clocks, strict=True)):
        key, at = (one.stage, one.kind), clock or profile.default_clock_mhz(one.stage)
        if key in fitted.draws:
            time_s, energy_j = (part[:, columns[key][at]] for part in fitted.draws[key])
        else:
            time_s, energy_j = (np.full(DRAWS, value) for value in profile.at(*key, at))
        seconds[node] = time_s
        joules += pipeline.gpus.get(one.stage, 1) * (energy_j - profile.wait_power_w(at) * time_s)
    periods_s = _periods_s(graph, seconds)
    waits_w = sum(
        pipeline.rank_gpus(rank) * profile.wait_power_w(profile.default_clock_mhz(order[0].stage))
        for rank, order in enumerate(pipeline.schedule.orders)
    )
    return periods_s, joules + waits_w * periods_s


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
