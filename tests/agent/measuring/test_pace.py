"""A rank's own pace: found slow after three iterations, usual again after four, and seldom for nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_agent.measuring.history import History
from joulepath_agent.measuring.pace import Pace
from joulepath_crds import Arm
from joulepath_rules import Applied
from joulepath_trainer.wire.messages import InstructionSpan, IterationRecord

KIND = "what it runs, and at which clocks"


def known(iterations: int = 20) -> Pace:
    pace = Pace()
    for _ in range(iterations):
        pace.take(KIND, 1.0)
    return pace


@pytest.mark.parametrize("slower", [1.05, 1.2, 2.0])
def test_slow_after_three_iterations_and_usual_again_after_four(slower: float) -> None:
    pace, told = known(), []
    for busy_s in (*[slower] * 3, *[1.0] * 4):
        pace.take(KIND, busy_s)
        told.append(pace.slowdown)
    assert told == [1.0, 1.0, slower, slower, slower, slower, 1.0]


def test_two_long_iterations_are_none_and_two_short_ones_are_no_end() -> None:
    pace = known()
    for busy_s in (1.2, 1.2, 1.0, 1.2, 1.2, 1.0):
        pace.take(KIND, busy_s)
        assert pace.slowdown == 1.0
    for busy_s in (1.2, 1.2, 1.2, 1.0, 1.0, 1.2):
        pace.take(KIND, busy_s)
    assert pace.slowdown == 1.2


def test_who_is_slow_for_long_is_not_taken_for_usual() -> None:
    pace = known()
    for _ in range(5000):
        pace.take(KIND, 1.1)
    assert pace.slowdown == 1.1
    for _ in range(8):
        pace.take(KIND, 1.3)
    assert pace.slowdown == 1.3, "it has become slower"


def test_nothing_is_said_before_anything_is_usual() -> None:
    pace = Pace()
    for _ in range(3):
        pace.take(KIND, 1.0)
    for _ in range(4):
        pace.take(KIND, 1.5)
    assert pace.slowdown == 1.0


@given(st.integers(0, 2**32), st.floats(0, 0.01))
def test_noise_of_a_percent_is_no_slowness_and_ten_percent_are_found_in_it(seed: int, noise: float) -> None:
    chance, pace = random.Random(seed), Pace()
    for _ in range(300):
        pace.take(KIND, 1 + chance.gauss(0, noise))
        assert pace.slowdown == 1.0
    for _ in range(6):
        pace.take(KIND, 1.12 * (1 + chance.gauss(0, noise)))
    assert 1.06 < pace.slowdown < 1.18


@given(st.lists(st.tuples(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), st.floats(1e-6, 1e6)), max_size=200))
def test_whatever_comes_it_is_never_faster_than_usual_and_remembers_little(taken: list[tuple[str, float]]) -> None:
    pace = Pace()
    for kind, busy_s in taken:
        pace.take(kind, busy_s)
        assert pace.slowdown >= 1
    assert len(pace._kinds) <= 16


def play(history: History, first: int, count: int, applied: Applied, busy_s: float) -> int:
    """Iterations with one instruction; which one is next."""
    for number in range(first, first + count):
        history.begin(number, applied, float(number), spoiled_before=False)
        span = InstructionSpan("F", 0, 0, 0.1, 0.1 + busy_s)
        history.record(IterationRecord(number, 0.8, 1.0, (span,)))
    return first + count


def test_the_same_clocks_in_another_plan_are_known_and_a_sweep_s_clock_is_no_slowness() -> None:
    history = History()
    history.plays = {"one": (900, 0), "two": (900, 0), "three": (800, 0)}
    at = play(history, 0, 20, Applied(Arm.PLAN, 0, "one", None), 0.5)
    at = play(history, at, 4, Applied(Arm.SWEEP, 0, "sweep", 600), 0.7)
    at = play(history, at, 4, Applied(Arm.PLAN, 0, "three", None), 0.6)
    assert history.pace.slowdown == 1.0
    at = play(history, at, 4, Applied(Arm.PLAN, 0, "two", None), 0.6)
    assert history.pace.slowdown == 1.2, "by what they took in the plan before"


def test_the_first_iteration_at_other_clocks_says_nothing_of_the_pace() -> None:
    history, at = History(), 0
    at = play(history, at, 20, Applied(Arm.DEFAULT), 0.5)
    for block in range(6):
        at = play(history, at, 1, Applied(Arm.CONTROL, block, "one", 0), 0.7)
        at = play(history, at, 1, Applied(Arm.SWEEP, block, "one", 900), 0.7)
    assert history.pace.slowdown == 1.0


def test_a_plan_of_default_clocks_is_known_by_iterations_at_default_clocks() -> None:
    history = History()
    history.plays = {"one": (0, 0)}
    at = play(history, 0, 20, Applied(Arm.DEFAULT), 0.5)
    play(history, at, 3, Applied(Arm.PLAN, 0, "one", None), 0.6)
    assert history.pace.slowdown == 1.2, "its clocks were default ones before"
