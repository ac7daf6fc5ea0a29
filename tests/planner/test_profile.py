from __future__ import annotations

import math
from pathlib import Path

import pytest

from joulepath_planner import Pipeline, Point, Profile, ProfileError, fit, one_f_one_b
from tests.planner.pipelines import EXCERPT

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
        ({(0, "F"): GOOD, (0, "B"): GOOD[:1]}, r"stage 0 B has only one point, at 1400 MHz; .* mark it as fixed"),
        ({(0, "F"): GOOD, (0, "B"): ()}, r"stage 0 B has no point; measure at least two clocks"),
        ({(0, "F"): (Point(1400, math.nan, 30.0), *GOOD[1:])}, r"stage 0 F at 1400 MHz: time_s is nan"),
        ({(2, "B"): (Point(1400, 0.1, -3.0), *GOOD[1:])}, r"stage 2 B at 1400 MHz: energy_j is -3.0"),
        ({(0, "F"): (Point(0, 0.1, 3.0), *GOOD)}, r"stage 0 F at 0 MHz: no GPU has such a clock; give clocks as whole"),
        ({(0, "F"): (*GOOD, GOOD[0])}, r"stage 0 F at 1400 MHz is given twice"),
        ({(0, "F"): (Point(1400, 0.1, 3.0, -1.0), *GOOD[1:])}, r"time_se_s is -1.0"),
        ({(0, "R"): GOOD}, r"stage 0 has kind 'R'"),
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
        (
            "stage,instruction,frequency,time,energy\n0,forward,fast,1,1\n",
            "line 2: frequency is 'fast'; it must be a whole number",
        ),
    ],
)
def test_a_csv_that_is_not_zeus_s_is_refused_with_the_line(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "profile.csv").write_text(text)
    with pytest.raises(ProfileError, match=sentence):
        Profile.from_csv(tmp_path / "profile.csv", blocking_power_w=80.0)


def test_a_csv_may_name_every_kind_and_mark_what_is_fixed(tmp_path: Path) -> None:
    names = ("forward", "input", "weight", "Recomputation", "F")
    rows = [
        f"{stage},{name},{clock},0.1,{30 + clock / 100}"
        for stage, names in ((0, names[:4]), (1, names[4:]))
        for name in names
        for clock in (1400, 1200)
    ]
    rows += ["1,B,1400,0.2,60", "1,fixed,900,0.01,1.5"]
    (tmp_path / "profile.csv").write_text("\n".join(["stage,instruction,frequency,time,energy", *rows]))
    profile = Profile.from_csv(tmp_path / "profile.csv", blocking_power_w=80.0, fixed={(1, "B")})
    assert set(profile.points) == {(0, "F"), (0, "I"), (0, "W"), (0, "C"), (1, "F"), (1, "B"), (1, "X")}
    assert profile.fixed == {(1, "B"), (1, "X")}


FIXED = {(0, "F"): GOOD, (0, "B"): GOOD, (0, "X"): (Point(900, 0.01, 1.5),)}


def test_fixed_work_has_the_clocks_of_its_stage_and_one_time() -> None:
    profile = Profile(FIXED, 80.0)
    assert profile.is_fixed(0, "X")
    assert not profile.is_fixed(0, "F")
    assert profile.points[0, "X"] == (Point(1400, 0.01, 1.5), Point(1200, 0.01, 1.5))
    assert profile.default_clock_mhz(0) == 1400


def test_fixed_work_may_cost_less_at_lower_clocks_and_its_noise_is_averaged() -> None:
    measured = (Point(1400, 0.1, 30.0), Point(1000, 0.102, 26.0))
    profile = Profile({(0, "F"): GOOD, (0, "B"): measured}, 80.0, fixed={(0, "B")})
    assert [point.clock_mhz for point in profile.points[0, "B"]] == [1400, 1200]
    assert [point.time_s for point in profile.points[0, "B"]] == pytest.approx([0.101, 0.101])
    assert [point.energy_j for point in profile.points[0, "B"]] == [30.0, pytest.approx(28.0)]


def test_what_is_fixed_stays_so_under_a_cap_and_in_a_fit() -> None:
    three = (*GOOD, Point(1000, 0.13, 27.0))
    profile = Profile({**FIXED, (0, "F"): three, (0, "B"): three}, 80.0)
    assert Profile(profile.points, 80.0, profile.fixed) == profile
    assert profile.capped(1200).points[0, "X"] == (Point(1200, 0.01, 1.5), Point(1000, 0.01, 1.5))
    completed = fit(profile, range(1000, 1401, 100)).profile
    assert {(point.time_s, point.energy_j) for point in completed.points[0, "X"]} == {(0.01, 1.5)}
    assert [point.clock_mhz for point in completed.points[0, "X"]] == [1400, 1300, 1200, 1100, 1000]


@pytest.mark.parametrize(
    ("fixed", "sentence"),
    [
        ({(0, "W")}, "stage 0 W is marked fixed, but has no points; measure it at one clock"),
        ({(0, "F")}, "stage 0 F is marked fixed, but takes 0.1 s at 1400 MHz and 0.11 s at 1200 MHz; leave it out"),
    ],
)
def test_what_cannot_be_fixed_is_named(fixed: set[tuple[int, str]], sentence: str) -> None:
    with pytest.raises(ProfileError, match=sentence):
        Profile(FIXED, 80.0, fixed)


def test_a_clock_that_the_gpu_does_not_have_is_named() -> None:
    sentence = "stage 0 B at 1400 MHz: the GPU has no such clock; the nearest that it has is 1395 MHz"
    with pytest.raises(ProfileError, match=sentence):
        Profile(FIXED, 80.0, supported_clocks_mhz=range(210, 1411, 15))
    assert Profile(FIXED, 80.0, supported_clocks_mhz=(900, 1200, 1400)) == Profile(FIXED, 80.0)


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
    with pytest.raises(ProfileError, match=r"the schedule runs 1:F0, but the profile has only stages 0"):
        Pipeline(one_f_one_b(2, 2), Profile({(0, "F"): GOOD, (0, "B"): GOOD}, 80.0))


def test_a_negative_delay_is_refused() -> None:
    profile = Profile({(0, "F"): GOOD, (0, "B"): GOOD}, 80.0)
    with pytest.raises(ValueError, match=r"tail_s\[0\] is -1"):
        Pipeline(one_f_one_b(1, 2), profile, tail_s={0: -1.0})
