"""What looks at SM clocks conclude."""

from __future__ import annotations

import time
from functools import partial
from typing import cast

import pytest

from joulepath_clocks.gpus.foreign import OnForeignClock
from joulepath_clocks.gpus.looks import Watch
from joulepath_clocks.gpus.nvml import Gpu
from joulepath_clocks.gpus.setter import ClockSetter
from joulepath_clocks.gpus.wish import DEFAULT, Wish
from tests.agent.room import wait_until
from tests.clocks.gpus.test_setter import HIGH_MHZ, MovedGpu, NotedLessor


def nobody(at_s: float, clock_mhz: int, foreign: bool) -> None:
    """Is told of no clock that matters."""


class LoadedGpu(MovedGpu):
    """A GPU of a site that locks no clock below one of its own."""

    def __init__(self, site_low_mhz: int) -> None:
        super().__init__(capped=False)
        self.site_low_mhz, self.cause = site_low_mhz, False

    def lock(self, clock_mhz: int) -> None:
        """See Gpu."""
        super().lock(self.locked_mhz(clock_mhz))

    def locked_mhz(self, clock_mhz: int) -> int:
        """See Gpu."""
        return max(clock_mhz, self.site_low_mhz) if clock_mhz else 0

    def is_held_back(self) -> bool:
        """See Gpu."""
        return self.cause


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
    others: list[tuple[int, bool]] = []
    watch = Watch(setter, lambda _, clock_mhz, foreign: others.append((clock_mhz, foreign)))
    gpu.cause, gpu.held = cause, lambda _: seen_mhz
    ordered_s = time.monotonic()
    while time.monotonic() < ordered_s + 0.8:
        watch.look(lambda: True, time.monotonic())
        time.sleep(0.02)
    assert setter.foreign.yielded == is_foreign
    assert set(others) == ({(seen_mhz, is_foreign)} if is_foreign or cause else set())
    assert setter.close(5.0)


def test_nothing_is_concluded_from_a_gpu_that_computes_nothing() -> None:
    gpu = LoadedGpu(site_low_mhz=0)
    setter = ClockSetter(cast(Gpu, gpu), NotedLessor())
    watch = Watch(setter, nobody)
    for _ in range(50):
        watch.look(lambda: False, time.monotonic())
    assert setter.settled.clock_mhz is None
    for _ in range(50):
        watch.look(lambda: True, time.monotonic())
    assert setter.settled.clock_mhz == HIGH_MHZ
    assert setter.close(5.0)


def test_a_lock_of_somebody_else_shows_in_control_blocks_and_is_no_clock_that_the_gpu_settles_at() -> None:
    gpu = LoadedGpu(site_low_mhz=0)
    setter = ClockSetter(cast(Gpu, gpu), NotedLessor(), OnForeignClock.YIELD)
    for number, wish in enumerate((Wish(900), Wish(DEFAULT)), 1):
        setter.wish(wish)
        wait_until(partial(has_ordered, setter, number), "the clock is ordered")
    watch = Watch(setter, nobody)

    def is_settled() -> bool:
        watch.look(lambda: True, time.monotonic())
        return setter.settled.clock_mhz == HIGH_MHZ

    def is_yielded() -> bool:
        watch.look(lambda: True, time.monotonic())
        return setter.foreign.yielded == 1

    wait_until(is_settled, "it is known where it settles")
    gpu.held = lambda _: 600
    wait_until(is_yielded, "the lock is seen")
    assert setter.settled.clock_mhz == HIGH_MHZ
    assert setter.close(5.0)


def has_ordered(setter: ClockSetter, number: int) -> bool:
    """Whether so many orders were taken."""
    return setter.sets == number
