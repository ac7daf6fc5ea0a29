"""Work whose time no clock changes: it is planned around, and never asks for a clock."""

from __future__ import annotations

from typing import Literal, get_args

import pytest

from joulepath_planner import Granularity, LagTable, Pipeline, Point, Profile, plan, recorded, simulate
from tests.planner.pipelines import scaled

LOADING = recorded(["X0 F0 X1 F1 B0 X2 F2 B1 B2 X3", "F0 B0 X0 F1 B1 F2 B2", "F0 B0 F1 B1 F2 B2"])
STAGES = [1.0, 1.3, 0.9]


def loading(*joules: float, seconds: float = 0.02) -> Pipeline:
    """Three stages, two of which load data, for so many joules at 1400 and 1000 MHz."""
    points = dict(scaled(STAGES, 3).profile.points)
    for stage in (0, 1):
        points[stage, "X"] = tuple(Point(clock, seconds, one) for clock, one in zip((1400, 1000), joules, strict=False))
    return Pipeline(LOADING, Profile(points, 80.0))


@pytest.mark.parametrize("lags", [None, LagTable.constant(0.005)])
@pytest.mark.parametrize("granularity", get_args(Granularity))
@pytest.mark.parametrize("joules", [(2.0,), (2.0, 1.5), (1.5, 2.0)])
def test_fixed_work_runs_at_the_clock_of_what_follows(
    joules: tuple[float, ...], granularity: Granularity, lags: LagTable | None
) -> None:
    pipeline = loading(*joules)
    made = plan(pipeline, slowdown=0.05, granularity=granularity, lags=lags)
    assert made.predicted_savings > 0.02
    for order, clocks in zip(LOADING.orders, made.clocks, strict=True):
        for index, one in enumerate(order):
            if one.kind == "X":
                assert clocks[index] in (clocks[(index + 1) % len(order)], clocks[index - 1])
    assert simulate(pipeline, made.clocks, lags).iteration_time_s <= 1.05 * made.t_min_s * (1 + 1e-9)
    assert made.energy_j >= made.lower_bound_j * (1 - 1e-9)


def test_fixed_work_delays_what_waits_for_it() -> None:
    slow, quick = (plan(loading(2.0, seconds=seconds)) for seconds in (0.03, 0.01))
    assert quick.t_min_s + 0.02 < slow.t_min_s < quick.t_min_s + 0.02 * 5


def test_a_backward_marked_as_fixed_keeps_its_time() -> None:
    points = dict(scaled(STAGES, 3).profile.points)
    points[2, "B"] = (points[2, "B"][0],)
    profile = Profile(points, 80.0, fixed={(2, "B")})
    made = plan(Pipeline(scaled(STAGES, 3).schedule, profile), slowdown=0.1)
    backwards = [one.duration_s for one in made.ranks[2].instructions if one.instruction.kind == "B"]
    assert backwards == pytest.approx([profile.default(2, "B").time_s] * 3)
    assert made.predicted_savings > 0.02


@pytest.mark.parametrize("granularity", ["auto", "rank"])
@pytest.mark.parametrize("orders", [["F0 B0", "X0 F0 B0"], ["F0 F1 B0 B1", "X0 F0 B0 F1 B1"]])
def test_a_rank_may_load_data_before_the_first_stage_begins(
    orders: list[str], granularity: Literal["auto", "rank"]
) -> None:
    def series(seconds: float) -> tuple[Point, ...]:
        return tuple(
            Point(clock, seconds * 1400 / clock, seconds * 400 * (clock / 1400) ** 1.5) for clock in (1400, 1200, 1000)
        )

    points = {(stage, kind): series(0.05 if kind == "F" else 0.1) for stage in (0, 1) for kind in "FB"}
    pipeline = Pipeline(recorded(orders), Profile({**points, (1, "X"): (Point(1400, 0.2, 20.0),)}, 80.0))
    for slowdown in (0.0, 0.05, 0.2, 0.5):
        made = plan(pipeline, slowdown=slowdown, granularity=granularity)
        assert made.energy_j >= made.lower_bound_j * (1 - 1e-6)
    slowest = simulate(pipeline, [[1000] * len(order) for order in pipeline.schedule.orders])
    assert made.energy_j == pytest.approx(slowest.energy_j, rel=1e-6), "half as much time again is enough for all"
