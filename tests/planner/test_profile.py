from __future__ import annotations

import math
from pathlib import Path

import pytest

from joulepath_planner import Pipeline, Point, Profile, ProfileError, one_f_one_b
from planner.pipelines import EXCERPT

GOOD = (Point(1400, 0.1, 30.0), Point(1200, 0.11, 28.0))


def test_the_published_csv_is_read() -> None:
    profile = Profile.from_csv(EXCERPT, blocking_power_w=83.64)
    assert profile.stages == (0, 7)
    assert profile.default_clock_mhz(7) == 1410
    assert profile.default(0, "F") == Point(1410, 0.05016166687011708, 23.80547200000007)
    assert len(profile.points[7, "B"]) == 19


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        ({(0, "F"): GOOD}, r"stage 0 has no backward"),
        ({(0, "F"): GOOD, (0, "I"): GOOD}, r"stage 0 has no backward: give its B, or its I and W"),
        ({(3, "B"): GOOD}, r"stage 3 has no F"),
        ({(0, "F"): GOOD, (0, "B"): GOOD[:1]}, r"stage 0 B has only one point, at 1400 MHz"),
        ({(0, "F"): (Point(1400, math.nan, 30.0), *GOOD[1:])}, r"stage 0 F at 1400 MHz: time_s is nan"),
        ({(2, "B"): (Point(1400, 0.1, -3.0), *GOOD[1:])}, r"stage 2 B at 1400 MHz: energy_j is -3.0"),
        ({(0, "F"): (Point(0, 0.1, 3.0), *GOOD)}, r"stage 0 F at 0 MHz: the clock must be above 0"),
        ({(0, "F"): (*GOOD, GOOD[0])}, r"stage 0 F at 1400 MHz is given twice"),
        ({(0, "F"): (Point(1400, 0.1, 3.0, -1.0), *GOOD[1:])}, r"time_se_s is -1.0"),
        ({(0, "X"): GOOD}, r"stage 0 has kind 'X'"),
        ({(0, "F"): GOOD, (0, "B"): (Point(1300, 0.1, 3.0), GOOD[1])}, r"end at different clocks \(B 1300 MHz, F 1400"),
        ({}, r"the profile is empty"),
    ],
)
def test_what_cannot_be_planned_on_is_named(points: dict[tuple[int, str], tuple[Point, ...]], sentence: str) -> None:
    with pytest.raises(ProfileError, match=sentence):
        Profile(points, 80.0)


@pytest.mark.parametrize(("watts", "sentence"), [(math.inf, "blocking_power_w is inf"), ({1400: -1.0}, "at 1400 MHz")])
def test_blocking_power_must_be_a_power(watts: float, sentence: str) -> None:
    with pytest.raises(ProfileError, match=sentence):
        Profile({(0, "F"): GOOD, (0, "B"): GOOD}, watts)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("stage,instruction,frequency,time\n", "column 'energy' is missing"),
        ("stage,instruction,frequency,time,energy\n0,sideways,1400,1,1\n", "line 2: instruction 'sideways' is unknown"),
        ("stage,instruction,frequency,time,energy\n0,forward,fast,1,1\n", "line 2: invalid literal"),
    ],
)
def test_a_csv_that_is_not_zeus_s_is_refused_with_the_line(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "profile.csv").write_text(text)
    with pytest.raises(ProfileError, match=sentence):
        Profile.from_csv(tmp_path / "profile.csv", blocking_power_w=80.0)


def test_blocking_power_by_clock_is_linear_between_clocks() -> None:
    profile = Profile({(0, "F"): GOOD, (0, "B"): GOOD}, {1400: 90.0, 1000: 50.0})
    assert profile.wait_power_w(1200) == pytest.approx(70.0)
    assert profile.least_wait_power_w == pytest.approx(70.0)  # the lowest clock of the profile is 1200 MHz


def test_a_cap_leaves_out_higher_clocks_and_must_be_measured() -> None:
    profile = Profile({(0, "F"): GOOD, (0, "B"): (*GOOD, Point(1000, 0.13, 27.0))}, 80.0)
    with pytest.raises(ProfileError, match="stage 0 F has only one point"):
        profile.capped(1200)
    with pytest.raises(ProfileError, match="no point at the default clock 1300 MHz"):
        profile.capped(1300)
    assert profile.capped(1400) == profile


def test_a_schedule_needs_every_kind_in_the_profile() -> None:
    with pytest.raises(ProfileError, match=r"the schedule runs 1:F0, but the profile has no F of that stage"):
        Pipeline(one_f_one_b(2, 2), Profile({(0, "F"): GOOD, (0, "B"): GOOD}, 80.0))


def test_a_negative_delay_is_refused() -> None:
    profile = Profile({(0, "F"): GOOD, (0, "B"): GOOD}, 80.0)
    with pytest.raises(ValueError, match=r"tail_s\[0\] is -1"):
        Pipeline(one_f_one_b(1, 2), profile, tail_s={0: -1.0})
