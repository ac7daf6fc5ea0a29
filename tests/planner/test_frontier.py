"""The frontier: convex, true to its slopes, and a lower bound between its points too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_planner import Pipeline, PlanningError, frontier
from tests.examples import examples
from tests.planner.pipelines import gpt3, pipelines


@examples(15)
@given(pipeline=pipelines(), share=st.floats(0, 1.2))
def test_between_its_points_the_frontier_is_convex_and_never_above_its_exact_value(
    pipeline: Pipeline, share: float
) -> None:
    coarse = frontier(pipeline, 4)
    time = coarse.t_min_s + share * (coarse.t_star_fixed_s - coarse.t_min_s)
    at = coarse.at(time)
    first, last = coarse.points[0], coarse.points[-1]
    for point in coarse.points:
        tangent = point.energy_j + point.slope_w * (time - point.iteration_time_s)
        assert tangent <= at.energy_j + 1e-6 * abs(at.energy_j)
    if time <= coarse.t_star_fixed_s and time > coarse.t_min_s:
        chord = first.energy_j + (last.energy_j - first.energy_j) * (time - coarse.t_min_s) / (
            last.iteration_time_s - first.iteration_time_s
        )
        assert at.energy_j <= chord + 1e-6 * abs(chord)
    assert at.price_w >= 0


def test_a_price_is_what_a_second_saves() -> None:
    fine = frontier(gpt3(4), 65)
    for before, here, after in zip(fine.points, fine.points[1:], fine.points[2:], strict=False):
        left = (before.energy_j - here.energy_j) / (here.iteration_time_s - before.iteration_time_s)
        right = (here.energy_j - after.energy_j) / (after.iteration_time_s - here.iteration_time_s)
        assert right - 1e-3 <= -here.slope_w <= left + 1e-3


def test_no_frontier_is_asked_below_t_min() -> None:
    found = frontier(gpt3(4), 3)
    with pytest.raises(PlanningError, match="T_min"):
        found.at(found.t_min_s * 0.99)


def test_a_frontier_by_its_bends_is_exact_between_them() -> None:
    pipeline = gpt3(3)
    bends = frontier(pipeline, None)
    even = frontier(pipeline, 40)
    for point in even.points:
        assert bends.at(point.iteration_time_s).energy_j == pytest.approx(point.energy_j, rel=2e-6)
    assert 10 < len(bends.points) < 300
    times = [point.iteration_time_s for point in bends.points]
    assert times == sorted(set(times))


def test_watts_of_the_host_bring_the_free_optimum_forward() -> None:
    without, little, much = (frontier(gpt3(3), 5, host_power_w=watts) for watts in (0.0, 40.0, 1e6))
    assert without.t_star_free_s >= little.t_star_free_s >= much.t_star_free_s
    assert without.t_star_free_s > much.t_star_free_s == pytest.approx(much.t_min_s)
    assert [point.energy_j for point in without.points] == [point.energy_j for point in much.points]


def test_gpus_of_a_stage_weigh_its_joules() -> None:
    one, many = frontier(gpt3(3), 5), frontier(gpt3(3, gpus=dict.fromkeys(range(8), 4)), 5)
    assert many.baseline_energy_j == pytest.approx(4 * one.baseline_energy_j)
    for mine, theirs in zip(many.points, one.points, strict=True):
        assert mine.energy_j == pytest.approx(4 * theirs.energy_j)
