"""Lags by target and direction: what is kept of them, and what raises go by."""

from __future__ import annotations

import pytest

from joulepath_clocks.gpus.lags import UNKNOWN_LAG_S, Lags
from joulepath_clocks.gpus.wish import DEFAULT


def test_a_raise_goes_by_a_target_only_once_enough_raises_to_it_are_measured() -> None:
    lags = Lags()
    assert lags.up.to(900) == lags.up.to(DEFAULT) == UNKNOWN_LAG_S
    for _ in range(60):
        lags.add("up", DEFAULT, 0.01)
    for expected_s in (0.01, 0.01, 0.05):
        lags.add("up", 900, 0.05)
        assert lags.up.to(900) == pytest.approx(expected_s)
    assert lags.up.to(DEFAULT) == pytest.approx(0.01)


def test_a_raise_to_a_clock_that_was_only_lowered_to_goes_by_that_as_raises_are_longer() -> None:
    lags = Lags()
    lags.add("down", 900, 0.05)
    lags.add("down", 1200, 0.01)
    assert lags.up.to(900) == UNKNOWN_LAG_S
    for _ in range(3):
        lags.add("up", DEFAULT, 0.06)
    assert [lags.up.to(clock) for clock in (DEFAULT, 900, 1200)] == pytest.approx([0.06, 0.10, 0.06])
    assert lags.up.to(1000) == pytest.approx(0.06), "it may be as slow as any"
    assert lags.summary is not None
    assert [(row.clock_mhz, row.direction) for row in lags.summary.targets] == [
        (DEFAULT, "up"),
        (900, "down"),
        (1200, "down"),
    ]


def test_a_few_quick_raises_do_not_overrule_the_lowerings_to_the_same_clock() -> None:
    lags = Lags()
    for _ in range(60):
        lags.add("up", DEFAULT, 0.01)
        lags.add("down", 900, 0.04)
    for raises in range(1, 21):
        lags.add("up", 900, 0.005)
        assert lags.up.to(900) == pytest.approx(0.04 if raises < 20 else 0.005)


def test_of_a_doctor_s_lags_each_is_kept_by_its_target_until_there_is_one_of_its_own() -> None:
    lags = Lags()
    lags.begin_with("up", [(DEFAULT, (0.01,) * 12), (900, (0.06,) * 12)])
    assert (lags.up.to(DEFAULT), lags.up.to(900), lags.up.to(1200)) == (0.01, 0.06, 0.06)
    lags.begin_with("up", [(900, (0.5,) * 99)])
    assert lags.up.to(900) == 0.06


def test_many_targets_and_many_switches_are_bounded_and_the_newest_stay() -> None:
    lags = Lags()
    for clock_mhz in range(300, 1500, 15):
        for _ in range(3):
            lags.add("up", clock_mhz, 0.01)
            lags.add("up", DEFAULT, 0.02)
            lags.add("down", clock_mhz, 0.01)
    for _ in range(999):
        lags.add("up", DEFAULT, 0.03)
    assert lags.summary is not None
    assert len(lags.summary.targets) == 2 * 32
    assert {DEFAULT, 1485} < lags.up.targets_s.keys()
    assert lags.up.to(DEFAULT) == pytest.approx(0.03)
    assert lags.summary.samples < 600
