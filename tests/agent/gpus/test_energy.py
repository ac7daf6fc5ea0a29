"""What is kept of an energy counter."""

from __future__ import annotations

import time
from functools import partial
from typing import cast

import numpy as np
import pytest

from joulepath_agent.gpus.energy import Edges, EnergyTrace, Trace
from joulepath_agent.gpus.foreign import OnForeignClock
from joulepath_agent.gpus.nvml import Gpu
from joulepath_agent.gpus.setter import ClockSetter
from joulepath_agent.gpus.wish import DEFAULT, Wish
from tests.agent.gpus.test_setter import HIGH_MHZ, MovedGpu, NotedLessor
from tests.agent.room import wait_until


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


class LoadedGpu(MovedGpu):
    """A GPU whose counter moves at each look, of a site that locks no clock below one of its own."""

    def __init__(self, site_low_mhz: int) -> None:
        super().__init__(capped=False)
        self.site_low_mhz, self.joules, self.cause = site_low_mhz, 0.0, False

    def lock(self, clock_mhz: int) -> None:
        """See Gpu."""
        super().lock(self.locked_mhz(clock_mhz))

    def locked_mhz(self, clock_mhz: int) -> int:
        """See Gpu."""
        return max(clock_mhz, self.site_low_mhz) if clock_mhz else 0

    def is_held_back(self) -> bool:
        """See Gpu."""
        return self.cause

    def energy_j(self) -> float:
        """See Gpu."""
        self.joules += 1.0
        return self.joules


@pytest.mark.parametrize(
    ("ordered_mhz", "seen_mhz", "cause", "is_foreign"),
    [
        (600, 900, False, False),
        (1200, 1200, False, False),
        (1200, 1410, False, True),
        (1200, 1000, False, True),
        (1200, 1000, True, False),
    ],
    ids=["a site's lowest clock", "as ordered", "reset", "set lower", "held back"],
)
def test_a_clock_is_somebody_elses_only_where_neither_our_order_nor_the_site_nor_the_driver_explains_it(
    ordered_mhz: int, seen_mhz: int, cause: bool, is_foreign: bool
) -> None:
    gpu = LoadedGpu(site_low_mhz=900)
    setter = ClockSetter(cast(Gpu, gpu), NotedLessor(), OnForeignClock.YIELD)
    setter.wish(Wish(ordered_mhz))
    wait_until(lambda: setter.sets == 1, "the clock is ordered")
    trace = EnergyTrace(setter)
    trace.computing, gpu.cause, gpu.held = True, cause, lambda _: seen_mhz
    ordered_s = time.monotonic()
    while time.monotonic() < ordered_s + 0.8:
        trace.poll()
        time.sleep(0.02)
    assert setter.foreign.yielded == is_foreign
    assert bool(trace.read().foreign_s) == is_foreign
    assert bool(trace.read().capped) == cause
    assert setter.close(5.0)


def test_nothing_is_concluded_from_a_gpu_that_computes_nothing() -> None:
    gpu = LoadedGpu(site_low_mhz=0)
    setter = ClockSetter(cast(Gpu, gpu), NotedLessor())
    trace = EnergyTrace(setter)
    for _ in range(50):
        trace.poll()
    assert setter.settled.clock_mhz is None
    trace.computing = True
    for _ in range(50):
        trace.poll()
    assert setter.settled.clock_mhz == HIGH_MHZ
    assert setter.close(5.0)


def test_a_lock_of_somebody_else_shows_in_control_blocks_and_is_no_clock_that_the_gpu_settles_at() -> None:
    gpu = LoadedGpu(site_low_mhz=0)
    setter = ClockSetter(cast(Gpu, gpu), NotedLessor(), OnForeignClock.YIELD)
    for number, wish in enumerate((Wish(900), Wish(DEFAULT)), 1):
        setter.wish(wish)
        wait_until(partial(has_ordered, setter, number), "the clock is ordered")
    trace = EnergyTrace(setter)
    trace.computing = True

    def is_settled() -> bool:
        trace.poll()
        return setter.settled.clock_mhz == HIGH_MHZ

    def is_yielded() -> bool:
        trace.poll()
        return setter.foreign.yielded == 1

    wait_until(is_settled, "it is known where it settles")
    gpu.held = lambda _: 600
    wait_until(is_yielded, "the lock is seen")
    assert setter.settled.clock_mhz == HIGH_MHZ
    assert setter.close(5.0)


def has_ordered(setter: ClockSetter, number: int) -> bool:
    """Whether so many orders were taken."""
    return setter.sets == number
