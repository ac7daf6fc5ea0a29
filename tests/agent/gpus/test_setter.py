"""How long switches take, measured on a GPU whose clock the test moves; the whole agent's tests have real lags."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest

from joulepath_agent.gpus.journal import Journal
from joulepath_agent.gpus.lags import UNKNOWN_LAG_S
from joulepath_agent.gpus.nvml import Gpu
from joulepath_agent.gpus.setter import ClockSetter
from joulepath_agent.gpus.wish import DEFAULT, Wish
from tests.agent.room import wait_until

LOW_MHZ, HIGH_MHZ = 900, 1410


class MovedGpu:
    """A GPU that is at the clock last ordered, at once; or, capped, stays where it is."""

    uuid, index, default_clock_mhz = "GPU-1", 0, HIGH_MHZ

    def __init__(self, capped: bool) -> None:
        self.capped, self.at_mhz, self.reads = capped, HIGH_MHZ, 0

    def lock(self, clock_mhz: int) -> None:
        """See Gpu."""
        self.at_mhz = self.at_mhz if self.capped else clock_mhz

    def reset(self) -> None:
        """See Gpu."""
        self.lock(HIGH_MHZ)

    def sm_clock_mhz(self) -> int:
        """See Gpu."""
        self.reads += 1
        return self.at_mhz


MakeSetter = Callable[..., tuple[MovedGpu, ClockSetter]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeSetter]:
    """Factory of a GPU and its setter."""
    with ExitStack() as stack:

        def begin(*, capped: bool = False) -> tuple[MovedGpu, ClockSetter]:
            gpu = MovedGpu(capped)
            setter = ClockSetter(cast(Gpu, gpu), Journal(tmp_path))
            stack.callback(setter.close, 5.0)
            return gpu, setter

        yield begin


def order(setter: ClockSetter, clock_mhz: int, *, measure: bool) -> None:
    """Orders a clock and waits until that is done."""
    sets = setter.sets
    setter.wish(Wish(clock_mhz, measure=measure))
    wait_until(lambda: setter.sets > sets, "the clock is ordered")


def test_switches_of_a_plan_are_not_measured(make: MakeSetter) -> None:
    gpu, setter = make()
    for _ in range(3):
        order(setter, LOW_MHZ, measure=False)
        order(setter, DEFAULT, measure=False)
    assert setter.close(5.0)
    assert (setter.lag(), setter.lag_up_s, gpu.reads) == (None, UNKNOWN_LAG_S, 0)


def test_a_switch_in_force_at_the_first_look_is_measured_and_one_that_changes_nothing_is_not(make: MakeSetter) -> None:
    gpu, setter = make()
    gpu.at_mhz = LOW_MHZ
    order(setter, LOW_MHZ, measure=True)
    order(setter, DEFAULT, measure=True)
    wait_until(lambda: setter.lag_up_s < UNKNOWN_LAG_S, "the raise is measured")
    assert setter.lag() is None, "there is no lag to a lower clock yet"
    order(setter, LOW_MHZ, measure=True)
    wait_until(lambda: (lag := setter.lag()) is not None and lag.samples == 2, "the lowering is measured")


def test_a_gpu_that_never_gets_to_its_clocks_is_not_looked_at_for_ever_but_anew_in_the_next_sweep(
    make: MakeSetter,
) -> None:
    gpu, setter = make(capped=True)
    gpu.at_mhz = LOW_MHZ - 1

    def sweep(switches: int) -> int:
        before = gpu.reads
        for _ in range(switches):
            order(setter, LOW_MHZ, measure=True)
            order(setter, DEFAULT, measure=True)
        for clock_mhz in (LOW_MHZ, DEFAULT):  # they end the last measurement
            order(setter, clock_mhz, measure=False)
        return gpu.reads - before

    assert sweep(20) >= 40
    assert sweep(3) == 0
    setter.release()
    wait_until(lambda: setter.sets == 51, "it is released")
    assert sweep(2) >= 4
