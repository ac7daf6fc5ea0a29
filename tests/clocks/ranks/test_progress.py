"""When a rank is looked at, and how long it may say nothing."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_clocks.peers.budget import BUDGET
from joulepath_clocks.ranks.progress import Progress, silence_limit_s
from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent


@given(st.floats(0, allow_infinity=True, allow_nan=False))
def test_no_length_of_iterations_lets_a_silent_rank_keep_its_clock_for_more_than_a_minute(iteration_s: float) -> None:
    assert 2.0 <= silence_limit_s(iteration_s, BUDGET.silence_s) <= 60.0


def test_a_rank_may_be_silent_for_three_iterations() -> None:
    assert silence_limit_s(0.0, 60.0) == 2.0
    assert silence_limit_s(5.0, 60.0) == 15.0
    assert silence_limit_s(5.0, 10.0) == 10.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of 110 instructions with waits between them, in the usual duration of the instruction."""

    begins_late: list[float]
    ends_late: list[float]
    looks: float
    """For each."""


def looked(
    lasts: Callable[[int], float], varies: float, seed: int, *, waits: tuple[float, float], raise_in_s: float = math.inf
) -> Seen:
    """The number of each instruction says how long it `lasts` and a share `varies` by how much that varies.

    `waits` are the least and the longest wait, in its duration.
    """
    chance, progress = random.Random(seed), Progress((0,), 0.0)
    progress.raise_in_s = raise_in_s
    now, looks = 0.0, 0

    def see(event: MarkerEvent, passed_at_s: float) -> float:
        nonlocal now, looks
        while now < passed_at_s:
            now, looks = progress.look_at_s(now), looks + 1
        progress.last_marker_s = now
        progress.passed(MarkerEntry(1, 1, event, "F", 0, 0), 900, now)
        return now - passed_at_s

    begins_late, ends_late = [], []
    for number in range(110):
        lasts_s = lasts(number)
        begun_at_s = now + chance.uniform(*waits) * lasts_s
        begins_late.append(see(MarkerEvent.BEGIN, begun_at_s) / lasts_s)
        ends_late.append(see(MarkerEvent.END, begun_at_s + lasts_s * chance.gauss(1.0, varies)) / lasts_s)
    return Seen(begins_late, ends_late, looks / len(ends_late))


@pytest.mark.parametrize("lasts_s", [0.01, 0.02, 0.1, 1.0])
@pytest.mark.parametrize("varies", [0.002, 0.01, 0.03])
def test_ends_are_seen_soon_with_few_looks(lasts_s: float, varies: float) -> None:
    seen = looked(lambda _: lasts_s, varies, 1, waits=(0.0, 0.3))
    assert statistics.median(seen.ends_late[4:10]) < 0.02, "it is soon known"
    assert statistics.median(seen.ends_late[10:]) < 0.01
    assert statistics.quantiles(seen.ends_late[10:], n=20)[-1] < 0.04
    assert seen.looks < 10 + 10 * lasts_s


@pytest.mark.parametrize("lasts_s", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("waits", [(0.29, 0.31), (2.9, 3.1)])
def test_after_a_usual_wait_a_begin_that_a_raise_goes_by_is_seen_soon_with_few_looks(
    lasts_s: float, waits: tuple[float, float]
) -> None:
    seen = looked(lambda _: lasts_s, 0.01, 1, waits=waits, raise_in_s=lasts_s)
    assert statistics.median(seen.begins_late[10:]) < 0.05
    assert statistics.quantiles(seen.begins_late[10:], n=20)[-1] < 0.09
    assert seen.looks < 15 + 20 * lasts_s * waits[1]


def test_the_further_off_a_raise_the_less_closely_its_begin_is_waited_for() -> None:
    looks = [
        looked(lambda _: 0.5, 0.01, 1, waits=(0.0, 0.4), raise_in_s=raise_in_s).looks
        for raise_in_s in (0.05, 0.25, 0.5)
    ]
    assert looks == sorted(looks, reverse=True)
    assert looks[-1] < 0.5 * looks[0]


def test_an_instruction_that_becomes_much_shorter_is_soon_seen_to_end_in_time_again() -> None:
    seen = looked(lambda number: 0.02 if number < 50 else 0.016, 0.002, 1, waits=(0.0, 0.3))
    assert max(seen.ends_late[50:60]) > 0.1
    assert max(seen.ends_late[70:]) < 0.03


def ended(progress: Progress, lasts_s: float = 0.2) -> float:
    """When it is looked at next after an instruction that began at 0."""
    for event, at_s in ((MarkerEvent.BEGIN, 0.0), (MarkerEvent.END, lasts_s)):
        progress.last_marker_s = at_s
        progress.passed(MarkerEntry(1, 1, event, "F", 0, 0), 900, at_s)
        progress.look_at_s(lasts_s)
    return progress.look_at_s(lasts_s)


def test_a_begin_that_nothing_goes_by_is_waited_for_with_fewer_looks() -> None:
    pauses_s = []
    for raise_in_s in (0.1, math.inf):
        progress = Progress((0,), 0.0)
        progress.raise_in_s = raise_in_s
        pauses_s.append(ended(progress) - 0.2)
    assert pauses_s == pytest.approx([0.005, 0.016])


def test_an_instruction_that_is_new_or_lasts_much_longer_is_looked_at_ever_less_often() -> None:
    progress = Progress((0,), 0.0)
    progress.passed(MarkerEntry(1, 1, MarkerEvent.BEGIN, "F", 0, 0), 900, 0.0)
    progress.last_marker_s = now = 0.0
    looks = 0
    while now < 1.0:
        now, looks = progress.look_at_s(now), looks + 1
    assert 50 < looks < 150


def test_the_first_begin_of_an_iteration_is_waited_for_as_closely_as_what_goes_by_it_asks() -> None:
    progress = Progress((0,), 0.0)
    progress.raise_in_s = math.inf
    assert ended(progress) == pytest.approx(0.216)
    progress.passed(MarkerEntry(1, 2, MarkerEvent.STEP_BEGIN, "", 0, 0), 900, 0.2)
    progress.raise_in_s = 0.1
    assert progress.look_at_s(0.2) == pytest.approx(0.205)


@pytest.mark.parametrize("raise_in_s", [0.0, 0.005, 0.05])
def test_an_end_that_a_raise_soon_follows_on_is_looked_for_as_early_as_that_needs(raise_in_s: float) -> None:
    due_s = []
    for in_s in (math.inf, raise_in_s):
        progress = Progress((0,), 0.0)
        for lasts_s in (0.2, 0.19, 0.21) * 5:
            ended(progress, lasts_s)
        progress.raise_in_s = in_s
        progress.passed(MarkerEntry(1, 1, MarkerEvent.BEGIN, "F", 0, 0), 900, 0.0)
        due_s.append(progress.look_at_s(0.0))
    assert due_s[0] < 0.2
    earliest_s = 0.19 - 0.005  # it was never off by more than 0.01 or so, and half of that is for what never was yet
    assert due_s[1] <= due_s[0]
    assert due_s[1] <= earliest_s + raise_in_s + 0.005


def test_an_end_earlier_than_any_is_soon_looked_for_in_time_where_a_raise_follows_at_once() -> None:
    progress, due_s = Progress((0,), 0.0), 0.0
    for lasts_s in (0.2,) * 20 + (0.15,) * 20:
        progress.raise_in_s = 0.0
        progress.passed(MarkerEntry(1, 1, MarkerEvent.BEGIN, "F", 0, 0), 900, 0.0)
        now = due_s = progress.look_at_s(0.0)
        while now < lasts_s:
            now = progress.look_at_s(now)
        progress.passed(MarkerEntry(1, 1, MarkerEvent.END, "F", 0, 0), 900, now)
    assert due_s < 0.15
