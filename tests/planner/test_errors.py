"""Whatever the planner refuses is one kind of error, and still what it was to callers that catch less."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import joulepath_planner as planner
from joulepath_planner import (
    ArgumentError,
    LagTable,
    Noise,
    ObjectiveError,
    Pipeline,
    PlannerError,
    PlanningError,
    Profile,
    ProfileError,
    Replica,
    ScheduleError,
)
from tests.planner.pipelines import scaled

PIPELINE = scaled([1.0, 1.2], 2)
FRONTIER = planner.frontier(PIPELINE, 2)


@pytest.mark.parametrize(
    ("ask", "error", "base"),
    [
        (lambda: Profile({}, 80.0), ProfileError, ValueError),
        (lambda: planner.fit(PIPELINE.profile, [1000]), ProfileError, ValueError),
        (lambda: planner.recorded(["F0 Z1"]), ScheduleError, ValueError),
        (lambda: planner.schedule_by_name("none", 1, 1), ScheduleError, ValueError),
        (lambda: LagTable.constant(-1.0), ArgumentError, ValueError),
        (lambda: Pipeline(PIPELINE.schedule, PIPELINE.profile, {(0, 5, "F"): 0.1}), ArgumentError, ValueError),
        (lambda: Pipeline(PIPELINE.schedule, PIPELINE.profile, gpus={0: 0}), ArgumentError, ValueError),
        (lambda: planner.plan(PIPELINE, deadline_s=0.01), PlanningError, RuntimeError),
        (lambda: planner.plan(PIPELINE, slowdown=-1.0), ArgumentError, ValueError),
        (lambda: planner.plan(PIPELINE, granularity="none"), ArgumentError, ValueError),  # type: ignore[arg-type]
        (lambda: planner.plan(PIPELINE, polish_s=-1.0), ArgumentError, ValueError),
        (lambda: planner.frontier(PIPELINE, 1), ArgumentError, ValueError),
        (lambda: planner.frontier_plans(PIPELINE, 1), ArgumentError, ValueError),
        (lambda: planner.alternatives(PIPELINE, reserve=2.0), ArgumentError, ValueError),
        (lambda: planner.simulate(PIPELINE, iterations=1), ArgumentError, ValueError),
        (lambda: planner.simulate(PIPELINE, [[None] * 4]), ArgumentError, ValueError),
        (lambda: planner.simulate(PIPELINE, [[None], [None]]), ArgumentError, ValueError),
        (lambda: Noise(2.0), ArgumentError, ValueError),
        (lambda: planner.robust_plan(PIPELINE, Noise(0.01), quantile=2.0), ArgumentError, ValueError),
        (lambda: FRONTIER.at(0.01), PlanningError, RuntimeError),
        (lambda: planner.least_energy_by(FRONTIER, 0.01), ObjectiveError, ValueError),
        (lambda: Replica(FRONTIER, -1.0), ObjectiveError, ValueError),
    ],
)
def test_one_error_is_enough_to_catch(
    ask: Callable[[], object], error: type[PlannerError], base: type[Exception]
) -> None:
    with pytest.raises(PlannerError) as refused:
        ask()
    assert type(refused.value) is error
    assert isinstance(refused.value, base)


def test_a_profile_that_is_no_file_of_ours_is_refused_in_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "profile.csv"
    path.write_text("stage,instruction,frequency,time,energy\n0,forward,1410,fast,1\n")
    with pytest.raises(PlannerError, match="time is 'fast'; it must be a number"):
        Profile.from_csv(path, blocking_power_w=80.0)
