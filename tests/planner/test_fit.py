from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_planner import Fit, Pipeline, Point, Profile, ProfileError, fit, one_f_one_b, plan, simulate
from tests.examples import examples
from tests.planner.pipelines import EXCERPT, gpt3, series

SUPPORTED = range(210, 1411, 15)
HANDFUL = (1410, 1380, 1320, 1230, 1110, 990, 870)
TOP, CAP = 1410, 1365
CLOCKS = tuple(range(TOP, 974, -15))
SIX = tuple(CLOCKS[place] for place in (0, 6, 12, 17, 23, 29))
SIZES = {0: 1.0, 1: 0.9, 2: 1.1, 3: 0.95}


def true_point(clock: int, size: float = 1.0, *, cap: int = CAP) -> Point:
    """30% of the time waits for memory, and the cap holds the clock."""
    share = min(clock, cap) / TOP
    seconds = 0.05 * size * (0.3 + 0.7 / share)
    return Point(clock, seconds, seconds * 400 * (0.35 + 0.65 * share**3))


def generated(
    sizes: Mapping[int, float] = SIZES,
    clocks: tuple[int, ...] = CLOCKS,
    *,
    cap: int = CAP,
    noise: float = 0.0,
    seed: int = 7,
    slow: Callable[[int, str, int], float] = lambda *_: 1.0,
) -> Profile:
    draw = np.random.default_rng(seed)
    points = {}
    for stage, size in sizes.items():
        for kind, times in (("F", 1.0), ("B", 2.0)):
            points[stage, kind] = tuple(
                Point(
                    clock,
                    (one := true_point(clock, size * times, cap=cap)).time_s
                    * (factor := slow(stage, kind, clock) * draw.normal(1, noise)),
                    one.energy_j * factor,
                )
                for clock in clocks
            )
    return Profile(points, 80.0)


def thinned(profile: Profile, clocks: tuple[int, ...]) -> Profile:
    return Profile(
        {key: tuple(one for one in points if one.clock_mhz in clocks) for key, points in profile.points.items()},
        profile.blocking_power_w,
    )


def told(found: Fit, stage: int, kind: str, clock: int) -> Point:
    return next(point for point in found.likely.points[stage, kind] if point.clock_mhz == clock)


def test_a_handful_of_clocks_tells_the_rest_within_noise() -> None:
    whole = Profile.from_csv(EXCERPT, blocking_power_w=83.64)
    completed = fit(thinned(whole, HANDFUL), SUPPORTED).profile
    for key, points in whole.points.items():
        known = {point.clock_mhz: point for point in completed.points[key]}
        for point in points:
            if point.clock_mhz >= 870:
                assert known[point.clock_mhz].time_s == pytest.approx(point.time_s, rel=0.01)
                assert known[point.clock_mhz].energy_j == pytest.approx(point.energy_j, rel=0.04)


@pytest.mark.slow
def test_a_plan_on_a_completed_profile_saves_nearly_as_much() -> None:
    truth = gpt3()
    guess = Pipeline(truth.schedule, fit(thinned(truth.profile, HANDFUL), SUPPORTED).profile)
    seen = simulate(truth, plan(guess).clocks)
    assert 1 - seen.energy_j / simulate(truth).energy_j > 0.15
    assert seen.iteration_time_s < plan(truth).t_min_s * 1.005


@examples(10)
@given(st.sampled_from([(1410, 870), (1410, 1200, 900), (1410, 1350, 1200, 1005, 900), HANDFUL]).flatmap(series))
def test_what_was_measured_stays_and_nothing_else_is_beyond_it(points: tuple[Point, ...]) -> None:
    found = fit(Profile({(0, "F"): points, (0, "B"): points}, 80.0), SUPPORTED)
    completed = found.profile.points[0, "F"]
    assert [point.clock_mhz for point in completed] == list(range(1410, points[-1].clock_mhz - 1, -15))
    measured = {point.clock_mhz: point for point in points}
    fastest, least_w = min(one.time_s for one in points), min(one.energy_j / one.time_s for one in points)
    for point in completed:
        if known := measured.get(point.clock_mhz):
            assert (point.time_s, point.energy_j) == (known.time_s, known.energy_j)
        else:
            assert point.time_s >= fastest
            assert point.energy_j / point.time_s >= least_w * (1 - 1e-9)
            assert point.time_se_s > 0
            assert point.energy_se_j > 0
    assert [residual.clock_mhz for residual in found.residuals[0, "F"]] == [point.clock_mhz for point in points]


def test_what_has_no_noise_is_told_exactly_with_its_plateau() -> None:
    truth = generated()
    found = fit(thinned(truth, CLOCKS[::3]), CLOCKS)
    for (stage, kind), points in truth.points.items():
        for point in points:
            if point.clock_mhz >= CLOCKS[::3][-1]:
                known = told(found, stage, kind, point.clock_mhz)
                assert known.time_s == pytest.approx(point.time_s, rel=0.001)
                assert known.energy_j == pytest.approx(point.energy_j, rel=0.003)
    assert not any(one.outlier for ones in found.residuals.values() for one in ones)


@pytest.mark.parametrize("at", [TOP, 1230])
def test_a_slow_outlier_is_told_and_carried_nowhere(at: int) -> None:
    def slow(stage: int, kind: str, clock: int) -> float:
        return 1.06 if (stage, kind, clock) == (1, "F", at) else 1.0

    truth, found = generated(), fit(generated(slow=slow, noise=0.002), CLOCKS)
    for clock in CLOCKS:
        true = next(point for point in truth.points[1, "F"] if point.clock_mhz == clock)
        assert told(found, 1, "F", clock).time_s == pytest.approx(true.time_s, rel=0.01)
    outliers = [(key, one.clock_mhz) for key, ones in found.residuals.items() for one in ones if one.outlier]
    assert outliers == [((1, "F"), at)]
    seen = next(one for one in found.residuals[1, "F"] if one.clock_mhz == at)
    assert seen.time == pytest.approx(0.06, abs=0.01)
    kept = next(one for one in found.profile.points[1, "F"] if one.clock_mhz == at)
    assert kept.time_se_s > 0.04 * kept.time_s, "a plan that counts on it is unsure"


def test_a_plateau_is_kept_flat_and_no_clock_on_it_is_faster() -> None:
    found = fit(generated(clocks=(1410, 1380, 1350, 1290, 1200, 1095, 975)), CLOCKS)
    times = {point.clock_mhz: point.time_s for point in found.profile.points[0, "F"]}
    assert times[1395] == pytest.approx(times[1410], rel=0.002)
    assert min(times.values()) >= min(times[1410], times[1380])


@pytest.mark.slow
def test_a_cap_that_shows_in_watts_is_known_to_the_seconds_too() -> None:
    """From seconds alone, with a noise of 2%, the cap's and the highest clock's are 1.3% apart on average here."""
    apart = []
    for seed in range(12):
        found = fit(thinned(generated(cap=1320, noise=0.02, seed=seed), SIX), CLOCKS)
        for key in found.likely.points:
            top, capped = (told(found, *key, clock).time_s for clock in (TOP, 1320))
            apart.append(abs(capped / top - 1))
    assert np.mean(apart) < 0.01


def test_default_clocks_that_the_cap_makes_slower_are_no_outliers() -> None:
    def slow(_stage: int, _kind: str, clock: int) -> float:
        return 1 + 0.4 * max(0.0, clock / 1320 - 1)

    found = fit(generated(cap=1320, slow=slow, noise=0.002), CLOCKS)
    assert not any(one.outlier for ones in found.residuals.values() for one in ones)
    for stage in SIZES:
        measured = found.profile.default(stage, "B")
        assert told(found, stage, "B", TOP).time_s == pytest.approx(measured.time_s, rel=0.005)


@pytest.mark.slow
def test_filling_in_clocks_costs_nothing_of_what_the_measured_ones_give() -> None:
    """Capped tops that are slower, slow outliers, noise: twenty clocks, of which the fit makes thirty-nine."""
    top, clocks = 1740, tuple(range(1740, 599, -60))
    draw = np.random.default_rng(3)
    points = {}
    for stage, size in SIZES.items():
        for kind, base in (("F", 0.05), ("B", 0.1)):
            ones = []
            for clock in clocks:
                share = min(clock, 1560) / top
                time_s = size * base * (0.4 + 0.6 / share) * (1 + 0.25 * max(0.0, clock / 1560 - 1))
                time_s *= draw.normal(1, 0.004) * (1.06 if draw.random() < 1 / 15 else 1)
                ones.append(Point(clock, time_s, time_s * 250 * (0.25 + 0.75 * share**2.5) * draw.normal(1, 0.004)))
            points[stage, kind] = tuple(ones)
    measured = Pipeline(one_f_one_b(4, 4), Profile(points, 70.0))
    completed = Pipeline(measured.schedule, fit(measured.profile, range(600, top + 1, 30)).profile)
    for slowdown in (0.0, 0.02):
        plain, filled = (plan(one, slowdown=slowdown, granularity="instruction") for one in (measured, completed))
        assert filled.lower_bound_j <= plain.lower_bound_j * (1 + 1e-6)
        assert filled.predicted_savings >= plain.predicted_savings - 5e-4
        assert plain.predicted_savings > 0.2


def test_a_profile_with_every_clock_measured_is_planned_as_it_is() -> None:
    profile = generated(noise=0.02)
    assert {key: [(p.clock_mhz, p.time_s, p.energy_j) for p in ones] for key, ones in profile.points.items()} == {
        key: [(p.clock_mhz, p.time_s, p.energy_j) for p in ones]
        for key, ones in fit(profile, CLOCKS).profile.points.items()
    }


@pytest.mark.slow
def test_errors_grow_where_points_are_few_and_noisy() -> None:
    def error(noise: float, clocks: tuple[int, ...]) -> float:
        found = fit(thinned(generated(noise=noise), clocks), CLOCKS)
        return float(np.mean([one.time_se_s / one.time_s for ones in found.likely.points.values() for one in ones]))

    assert error(0.01, CLOCKS) < error(0.01, SIX) < error(0.03, SIX)
    assert error(0.01, SIX) < error(0.01, (TOP, 975))


def test_known_errors_say_which_of_two_points_counts() -> None:
    def guess(errors: tuple[float, float]) -> float:
        points = [true_point(clock, cap=TOP) for clock in CLOCKS[::3]]
        for place, error in zip((4, 5), errors, strict=True):
            one = points[place]
            bump = 1.03 if place == 4 else 0.97
            points[place] = Point(one.clock_mhz, one.time_s * bump, one.energy_j * bump, error * one.time_s)
        seen = tuple(Point(p.clock_mhz, p.time_s, p.energy_j, p.time_se_s or 0.004 * p.time_s) for p in points)
        found = fit(Profile({(0, "F"): seen, (0, "B"): seen}, 80.0), CLOCKS)
        return told(found, 0, "F", points[4].clock_mhz).time_s / true_point(points[4].clock_mhz, cap=TOP).time_s

    assert guess((0.002, 0.05)) > guess((0.05, 0.002))


def test_a_stage_with_few_points_takes_its_shape_from_the_others() -> None:
    truth = generated()
    few = dict(truth.points)
    for kind in "FB":
        few[3, kind] = tuple(one for one in truth.points[3, kind] if one.clock_mhz in (TOP, 975))
    shared = fit(Profile(few, 80.0), CLOCKS)
    alone = fit(Profile({(0, kind): few[3, kind] for kind in "FB"}, 80.0), CLOCKS)

    def furthest(found: Fit, stage: int) -> float:
        return max(abs(told(found, stage, "F", p.clock_mhz).time_s / p.time_s - 1) for p in truth.points[3, "F"])

    assert furthest(shared, 3) < 0.005 < furthest(alone, 0)


def test_draws_spread_as_the_errors_say() -> None:
    found = fit(thinned(generated(noise=0.01), SIX), CLOCKS)
    for key, (seconds, _) in found.draws.items():
        likely = found.likely.points[key]
        spread = np.std(seconds, axis=0) / [one.time_se_s for one in likely]
        assert 0.6 < spread.mean() < 1.5
        assert np.mean(seconds, axis=0) == pytest.approx([one.time_s for one in likely], rel=0.01)


def test_a_default_clock_that_is_not_supported_is_refused() -> None:
    with pytest.raises(ProfileError, match="stage 0 F: the highest measured clock, 1410 MHz, is not a supported clock"):
        fit(Profile.from_csv(EXCERPT, blocking_power_w=83.64), range(900, 1400, 15))


def test_values_beyond_any_curve_are_refused() -> None:
    points = (Point(1410, 0.05, 20.0), Point(1200, 1e-300, 20.0))
    with pytest.raises(ProfileError, match="are all of them in seconds and joules"):
        fit(Profile({(0, "F"): points, (0, "B"): points}, 80.0), SUPPORTED)


@pytest.mark.parametrize("stages", [1, 4])
def test_two_clocks_without_noise_tell_what_lies_between(stages: int) -> None:
    """No cap is seen in them: a curve with one is no likelier than one without, however many stages there are."""
    truth = generated(dict(enumerate([1.0, 0.9, 1.1, 0.95][:stages])), cap=TOP)
    found = fit(thinned(truth, (TOP, 975)), CLOCKS)
    for (stage, kind), points in truth.points.items():
        for point in points:
            known = told(found, stage, kind, point.clock_mhz)
            assert known.time_s == pytest.approx(point.time_s, rel=0.02)
            assert known.energy_j == pytest.approx(point.energy_j, rel=0.12)
            assert abs(known.energy_j - point.energy_j) < 2.5 * known.energy_se_j + 1e-6


def test_a_point_without_an_error_counts_no_more_than_those_with_one() -> None:
    def guess(error: float) -> float:
        points = [true_point(clock, cap=TOP) for clock in CLOCKS[::3]]
        seen = tuple(
            Point(one.clock_mhz, one.time_s * 1.03, one.energy_j, error * one.time_s)
            if place == 5
            else Point(one.clock_mhz, one.time_s, one.energy_j, 0.01 * one.time_s)
            for place, one in enumerate(points)
        )
        found = fit(Profile({(0, "F"): seen, (0, "B"): seen}, 80.0), CLOCKS)
        return told(found, 0, "F", points[5].clock_mhz).time_s

    assert guess(0.0) == pytest.approx(guess(0.01), rel=0.001)
    assert guess(0.0) < guess(0.0005)


def test_a_step_at_which_lower_clocks_are_sooner_done_is_no_mistake_where_errors_are_told() -> None:
    places = range(0, len(CLOCKS), 2)
    lower = (4, 6, 8)
    sooner = {place: 0.975 if place in lower else 1.0 for place in places}
    seen = tuple(
        Point(one.clock_mhz, one.time_s * by, one.energy_j * by, 5e-4 * one.time_s, 4e-3 * one.energy_j)
        for place, by in sooner.items()
        for one in (true_point(CLOCKS[place], cap=TOP),)
    )
    found = fit(Profile({(stage, kind): seen for stage in range(3) for kind in "FB"}, 80.0), CLOCKS)
    for measured in seen:
        assert told(found, 0, "F", measured.clock_mhz).time_s == pytest.approx(measured.time_s, rel=0.005)


def test_no_draw_is_negative_however_unsure_the_points_are() -> None:
    doubtful = {
        key: tuple(Point(p.clock_mhz, p.time_s, p.energy_j, 2 * p.time_s, 2 * p.energy_j) for p in points)
        for key, points in thinned(generated(noise=0.02), SIX).points.items()
    }
    found = fit(Profile(doubtful, 80.0), CLOCKS)
    assert all((seconds > 0).all() and (joules > 0).all() for seconds, joules in found.draws.values())
