"""What is kept of an energy counter."""

from __future__ import annotations

import bisect
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from joulepath_agent.gpus.energy import Edges, EnergyTrace, Sampler, Trace


def counted(period_s: float, duration_s: float, watts: float = 300.0) -> Trace:
    """The trace of a GPU of constant power whose counter moves so often."""
    edges = Edges()
    for number in range(round(duration_s / period_s)):
        edges.add(number * period_s, number * period_s * watts, 0.001)
    rows = edges.read()
    return Trace(rows[:, 0], rows[:, 1], rows[:, 2])


@pytest.mark.parametrize("period_s", [0.02, 0.1])
def test_joules_can_be_told_for_a_block_of_half_an_hour(period_s: float) -> None:
    trace = counted(period_s, 2000.0)
    begin_s, end_s = 150.3, 1950.7
    assert trace.covers(begin_s, end_s)
    assert trace.joules_at(end_s) - trace.joules_at(begin_s) == pytest.approx(300.0 * (end_s - begin_s), rel=1e-9)


def test_the_last_minutes_are_kept_edge_by_edge_and_in_order() -> None:
    trace = counted(0.02, 2000.0)
    spacing = np.diff(trace.time_s)
    assert (spacing > 0).all()
    assert spacing[trace.time_s[1:] > 2000.0 - 160.0].max() < 0.021
    assert spacing.max() < 1.1


def test_memory_is_bounded_however_fast_the_counter_is() -> None:
    trace = counted(0.001, 200.0)
    assert len(trace.time_s) <= 2 * 8000 + 200


class Counter:
    """An energy counter of a GPU, and a host that looks at it, in simulated time."""

    def __init__(self, period_s: float, phase: float, jitter: float = 0.0, seed: int = 0) -> None:
        self._chance, self._watts = random.Random(seed), 300.0
        self.period_s, self.reads = period_s, 0
        moves = (number + phase + jitter * self._chance.uniform(-1.0, 1.0) for number in range(int(60 / period_s) + 2))
        self.moves_s = [move * period_s for move in moves]
        self.trace = EnergyTrace(self._read, lambda: self.now_s)
        self.now_s = 0.0

    def _read(self) -> float:
        self.reads += 1
        self.now_s += 2e-5
        return bisect.bisect_right(self.moves_s, self.now_s) * self._watts * self.period_s

    def watch(self, until_s: float, late_s: Callable[[float], float] = lambda _: 1e-4) -> None:
        """As the sampler does, waking so much later than it wants to."""
        while self.now_s < until_s:
            self.trace.poll()
            wanted_s = max(self.now_s, self.trace.late_s)
            self.now_s = wanted_s + late_s(wanted_s)

    def errors(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """By how much each edge is off, and by how much it is said to be at most."""
        trace = self.trace.read()
        numbers = np.rint(trace.energy_j / (self._watts * self.period_s)).astype(int)
        return np.abs(trace.time_s - np.array(self.moves_s)[numbers - 1]), trace.uncertainty_s


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from((0.02, 0.1, 0.25)),
    st.floats(0.1, 0.9),
    st.lists(st.tuples(st.floats(0, 30), st.floats(0, 0.4)), max_size=20),
)
def test_no_edge_is_farther_off_than_it_is_said_to_be_however_late_the_host_looks(
    period_s: float, phase: float, stalls: list[tuple[float, float]]
) -> None:
    counter = Counter(period_s, phase)

    def late_s(now_s: float) -> float:
        return max(
            (begin + length - now_s for begin, length in stalls if begin <= now_s < begin + length), default=1e-4
        )

    counter.watch(30.0, late_s)
    off_s, most_s = counter.errors()
    assert (off_s <= most_s + 2e-5).all()


def test_an_even_counter_is_read_once_a_period_and_a_little_more_and_no_edge_is_missed() -> None:
    counter = Counter(0.1, 0.3)
    counter.watch(10.0)
    begun = counter.reads
    counter.watch(50.0)
    assert (counter.reads - begun) / 400 < 1.3
    off_s, most_s = counter.errors()
    assert len(off_s) == pytest.approx(500, abs=3)
    assert np.median(most_s) < 0.0015
    assert off_s.mean() < 0.0005


@pytest.mark.parametrize("jitter", [0.03, 0.1])
def test_the_edges_of_a_counter_without_a_beat_are_all_looked_for(jitter: float) -> None:
    counter = Counter(0.1, 0.3, jitter)
    counter.watch(5.0)
    begun = len(counter.errors()[0])
    counter.watch(50.0)
    off_s, _ = counter.errors()
    assert len(off_s) == pytest.approx(500, abs=3)
    assert np.median(off_s[begun:]) < 0.001


def test_a_counter_that_changes_its_period_is_followed() -> None:
    counter = Counter(0.1, 0.3)
    counter.moves_s = [*counter.moves_s[:200], *(20.0 + 0.07 * number for number in range(1, 500))]
    counter.watch(50.0)
    trace, (off_s, _) = counter.trace.read(), counter.errors()
    later = trace.time_s > 25.0
    assert later.sum() == pytest.approx(25 / 0.07, abs=3)
    assert off_s[later].max() < 0.0025


def test_one_wake_serves_all_gpus() -> None:
    counters = [Counter(0.1, 0.05 + number / 9) for number in range(8)]
    sampler = Sampler(lambda: [counter.trace for counter in counters])
    now_s, wakes = 0.0, 0
    while now_s < 40.0:
        for counter in counters:
            counter.now_s = now_s
        wanted_s = sampler.turn(now_s)
        now_s = max(now_s + 3e-4, wanted_s + 1e-4)
        wakes += now_s > 20.0
    assert wakes / 20 < 60, "eight GPUs have 80 edges a second"


@pytest.mark.parametrize("period_s", [0.02, 0.1])
@pytest.mark.parametrize("learnt_s", [15, 50, 600])
@pytest.mark.parametrize("away_s", [5, 20, 200, 15_000, 30_000])
def test_edges_are_found_again_however_long_none_was_read(period_s: float, learnt_s: int, away_s: int) -> None:
    """All in periods of the counter, which is read on after a hang, or after NVML has failed."""
    counter = Counter(period_s, 0.3)
    counter.moves_s = [(number + 0.3) * period_s for number in range(learnt_s + away_s + 400)]
    counter.watch(learnt_s * period_s)
    counter.now_s += away_s * period_s
    begun, back_s = len(counter.errors()[0]), counter.now_s
    counter.watch(back_s + 300 * period_s)
    off_s, most_s = counter.errors()
    assert len(off_s) - begun == pytest.approx(300, abs=20)
    assert (off_s <= most_s + 2e-5).all()


class Changing(Counter):
    """A counter that counts evenly and moves as it likes: at each move it shows what was spent until then."""

    def __init__(self, moves_s: list[float]) -> None:
        super().__init__(0.1, 0.0)
        self.moves_s = moves_s

    def _read(self) -> float:
        self.reads += 1
        self.now_s += 2e-5
        passed = bisect.bisect_right(self.moves_s, self.now_s)
        return self._watts * self.moves_s[passed - 1] if passed else 0.0

    def errors(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """See Counter."""
        trace = self.trace.read()
        return np.abs(trace.time_s - trace.energy_j / self._watts), trace.uncertainty_s


def moving(*parts: tuple[float, float], begin_s: float = 0.03) -> list[float]:
    """Moves, parts one after the other: each so many seconds long, at so many seconds from one to the next."""
    moves_s = [begin_s]
    for lasts_s, period_s in parts:
        first_s = moves_s[-1]
        moves_s += [first_s + number * period_s for number in range(1, round(lasts_s / period_s) + 1)]
    return moves_s


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_a_counter_that_begins_to_move_between_its_beats_is_noticed(parts: int) -> None:
    counter = Changing(moving((20.0, 0.1), (40.0, 0.1 / parts)))
    counter.watch(50.0)
    trace, (off_s, most_s) = counter.trace.read(), counter.errors()
    assert (off_s <= most_s + 2e-5).all()
    later = trace.time_s > 20.0 + 50 * 0.1 + 2.0
    assert later.sum() == pytest.approx(23.0 * parts / 0.1, abs=3), "it is followed at its new pace"


CHANGES = st.tuples(st.just("period"), st.sampled_from((1 / 2, 2.0, 1 / 3, 3.0, 0.7, 1.1))) | st.tuples(
    st.just("pause"), st.sampled_from((0.3, 0.5, 7.0, 20.5))
)
WANDERINGS = st.tuples(st.just("drift"), st.floats(-3e-3, 3e-3)) | st.tuples(st.just("jitter"), st.floats(0.0, 0.1))


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from((0.02, 0.1)),
    st.floats(0.1, 0.9),
    st.lists(CHANGES, min_size=1, max_size=4),
    st.lists(WANDERINGS, max_size=2),
    st.randoms(use_true_random=False),
)
def test_joules_between_two_times_are_as_sure_as_their_edges_say_whatever_the_counter_does(
    period_s: float,
    phase: float,
    changes: list[tuple[str, float]],
    wanderings: list[tuple[str, float]],
    chance: random.Random,
) -> None:
    """Of paces that last for fifty periods, and a third as sure where the beat wanders."""
    moves_s, jitter, step_s = moving((300 * period_s, period_s), begin_s=phase * period_s), 0.0, period_s
    for kind, much in chance.sample(changes + wanderings, len(changes + wanderings)):
        before_s = step_s
        if kind == "pause":
            moves_s.append(moves_s[-1] + (1 + much) * step_s)
        elif kind == "jitter":
            jitter = much
        else:
            step_s = min(4 * period_s, step_s * (much if kind == "period" else 1 + much))
        first_s = moves_s[-1]
        beats = range(1, round(chance.uniform(60, 200) * max(before_s, step_s) / step_s))
        moves_s += [first_s + (beat + jitter * chance.uniform(-0.5, 0.5)) * step_s for beat in beats]
    end_s = moves_s[-1]
    long_s = 4 * period_s
    counter = Changing([*moves_s, *(end_s + number * step_s for number in range(1, round(100 * long_s / step_s)))])
    counter.watch(end_s + 80 * long_s)
    trace, (off_s, most_s) = counter.trace.read(), counter.errors()
    told = trace.time_s < end_s + long_s
    jitter = max((much for kind, much in wanderings if kind == "jitter"), default=0.0)
    most_s = (3 if wanderings else 1) * most_s + jitter * long_s + 2e-5
    assert (off_s <= most_s)[told].all()
    for _ in range(20):
        one_s, other_s = sorted(chance.uniform(trace.time_s[0], end_s) for _ in range(2))
        told_j = trace.joules_at(other_s) - trace.joules_at(one_s)
        assert abs(told_j - 300.0 * (other_s - one_s)) <= 300.0 * 2 * most_s.max()
