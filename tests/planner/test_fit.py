from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulepath_planner import Pipeline, Point, Profile, ProfileError, fit, plan, simulate
from tests.planner.pipelines import EXCERPT, gpt3, series

SUPPORTED = range(210, 1411, 15)
HANDFUL = (1410, 1380, 1320, 1230, 1110, 990, 870)


def thinned(profile: Profile, clocks: tuple[int, ...]) -> Profile:
    return Profile(
        {key: tuple(one for one in points if one.clock_mhz in clocks) for key, points in profile.points.items()},
        profile.blocking_power_w,
    )


def test_a_handful_of_clocks_tells_the_rest_within_noise() -> None:
    whole = Profile.from_csv(EXCERPT, blocking_power_w=83.64)
    completed = fit(thinned(whole, HANDFUL), SUPPORTED).profile
    for key, points in whole.points.items():
        told = {point.clock_mhz: point for point in completed.points[key]}
        for point in points:
            if point.clock_mhz >= 870:
                assert told[point.clock_mhz].time_s == pytest.approx(point.time_s, rel=0.01)
                assert told[point.clock_mhz].energy_j == pytest.approx(point.energy_j, rel=0.04)


def test_a_plan_on_a_completed_profile_saves_nearly_as_much() -> None:
    truth = gpt3()
    guess = Pipeline(truth.schedule, fit(thinned(truth.profile, HANDFUL), SUPPORTED).profile)
    seen = simulate(truth, plan(guess).clocks)
    assert 1 - seen.energy_j / simulate(truth).energy_j > 0.15
    assert seen.iteration_time_s < plan(truth).t_min_s * 1.005


@settings(max_examples=60)
@given(st.sampled_from([(1410, 870), (1410, 1200, 900), (1410, 1350, 1200, 1005, 900), HANDFUL]).flatmap(series))
def test_no_clock_is_faster_than_default_or_than_a_higher_one(points: tuple[Point, ...]) -> None:
    measured = Profile({(0, "F"): points, (0, "B"): points}, 80.0)
    found = fit(measured, SUPPORTED)
    completed = found.profile.points[0, "F"]
    assert completed[0] == points[0]
    assert [point.clock_mhz for point in completed] == list(range(1410, points[-1].clock_mhz - 1, -15))
    times = [point.time_s for point in completed]
    assert times == sorted(times)
    assert times[1] > times[0]
    assert [residual.clock_mhz for residual in found.residuals[0, "F"]] == [point.clock_mhz for point in points]


def test_noise_that_is_known_is_smoothed_and_kept_where_it_is_not() -> None:
    def at(clock: int) -> tuple[float, float]:
        return 0.01 + 0.04 * 1400 / clock, 20.0

    clocks = (1400, 1300, 1200, 1100, 1000, 900)
    bump = {1100: 1.02}
    rough = [Point(clock, at(clock)[0] * bump.get(clock, 1), at(clock)[1]) for clock in clocks]
    known = tuple(Point(p.clock_mhz, p.time_s, p.energy_j, 0.02 * p.time_s, 0.02 * p.energy_j) for p in rough)

    def told(points: tuple[Point, ...]) -> float:
        found = fit(Profile({(0, "F"): points, (0, "B"): points}, 80.0), clocks).profile.points[0, "F"]
        return next(point.time_s for point in found if point.clock_mhz == 1100) / at(1100)[0]

    assert told(tuple(rough)) == pytest.approx(1.02, abs=1e-3)
    assert told(known) < 1.012


def test_a_default_clock_that_is_not_supported_is_refused() -> None:
    with pytest.raises(ProfileError, match="stage 0 B: the highest measured clock, 1410 MHz, is not a supported clock"):
        fit(Profile.from_csv(EXCERPT, blocking_power_w=83.64), range(900, 1400, 15))
