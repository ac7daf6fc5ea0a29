"""How long switches take, measured on a GPU whose clock the test moves; the whole agent's tests have real lags."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import cast

import pytest

from joulepath_clocks.gpus import setter as setter_module
from joulepath_clocks.gpus.lags import UNKNOWN_LAG_S, Switch
from joulepath_clocks.gpus.nvml import Gpu
from joulepath_clocks.gpus.setter import ClockSetter
from joulepath_clocks.gpus.wish import DEFAULT, Wish
from tests.agent.room import wait_until

LOW_MHZ, HIGH_MHZ = 900, 1410


class MovedGpu:
    """A GPU that is at the clock last ordered, at once; or, capped, stays where it is."""

    uuid, index, default_clock_mhz = "GPU-1", 0, HIGH_MHZ
    supported_clocks_mhz = tuple(range(HIGH_MHZ, 200, -15))

    def __init__(self, capped: bool) -> None:
        self.capped, self.at_mhz, self.reads = capped, HIGH_MHZ, 0
        self.held: Callable[[int], int] = lambda clock_mhz: clock_mhz
        """What is seen of the clock that it is at."""
        self.returns = threading.Event()
        self.returns.set()

    def lock(self, clock_mhz: int) -> None:
        """See Gpu."""
        self.returns.wait()
        self.at_mhz = self.at_mhz if self.capped else clock_mhz

    def reset(self) -> None:
        """See Gpu."""
        self.lock(HIGH_MHZ)

    def sm_clock_mhz(self) -> int:
        """See Gpu."""
        self.reads += 1
        return self.held(self.at_mhz)


class NotedLessor:
    """Leases everything, unless told otherwise, and notes what it is asked."""

    def __init__(self) -> None:
        self.refusal, self.asked = "", list[str]()

    def take(self, uuid: str) -> str:
        """See Lessor."""
        self.asked.append("take")
        return self.refusal

    def give_back(self, uuid: str) -> None:
        """See Lessor."""
        self.asked.append("give back")


MakeSetter = Callable[..., tuple[MovedGpu, ClockSetter]]


@pytest.fixture
def lessor() -> NotedLessor:
    return NotedLessor()


@pytest.fixture
def make(lessor: NotedLessor) -> Iterator[MakeSetter]:
    """Factory of a GPU and its setter."""
    with ExitStack() as stack:

        def begin(*, capped: bool = False) -> tuple[MovedGpu, ClockSetter]:
            gpu = MovedGpu(capped)
            setter = ClockSetter(cast(Gpu, gpu), lessor)
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
    assert (setter.lag(), setter.lags_up.to(DEFAULT), gpu.reads) == (None, UNKNOWN_LAG_S, 0)


def test_a_switch_in_force_at_the_first_look_is_measured_and_one_that_changes_nothing_is_not(make: MakeSetter) -> None:
    gpu, setter = make()
    gpu.at_mhz = LOW_MHZ
    order(setter, LOW_MHZ, measure=True)
    order(setter, DEFAULT, measure=True)
    wait_until(lambda: setter.lags_up.to(DEFAULT) < UNKNOWN_LAG_S, "the raise is measured")
    assert setter.lag() is None, "there is no lag to a lower clock yet"
    order(setter, LOW_MHZ, measure=True)
    wait_until(lambda: (lag := setter.lag()) is not None and lag.samples == 2, "the lowering is measured")


def test_lags_are_told_by_the_clock_that_was_ordered(make: MakeSetter) -> None:
    _, setter = make()
    for _ in range(3):
        for clock_mhz in (LOW_MHZ, DEFAULT):
            order(setter, clock_mhz, measure=True)
    wait_until(lambda: (lag := setter.lag()) is not None and lag.samples == 6, "all switches are measured")
    lag = setter.lag()
    assert lag is not None
    assert [(row.clock_mhz, row.direction, row.samples) for row in lag.targets] == [
        (DEFAULT, "up", 3),
        (LOW_MHZ, "down", 3),
    ]
    assert setter.lags_up.targets_s.keys() == {DEFAULT, LOW_MHZ}


def test_a_switch_is_taken_to_have_come_in_force_between_two_looks(
    make: MakeSetter, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, setter = make()
    now = [100.0]

    def sleep(pause_s: float) -> None:
        now[0] += 0.001

    gpu.held = lambda _: LOW_MHZ if now[0] > 100.0103 else HIGH_MHZ
    monkeypatch.setattr(setter_module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    switch = Switch.between(HIGH_MHZ, LOW_MHZ, 15, 0)
    assert switch is not None
    assert setter._measured_lag_s(switch, 100.0) == pytest.approx(0.0105)


def test_a_gpu_that_never_gets_to_its_clocks_is_not_looked_at_for_ever_but_anew_in_the_next_sweep(
    make: MakeSetter,
) -> None:
    gpu, setter = make(capped=True)
    gpu.at_mhz = 1100

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


def test_a_gpu_is_leased_once_before_its_clock_is_touched_and_given_back_after_the_reset(
    make: MakeSetter, lessor: NotedLessor
) -> None:
    gpu, setter = make()
    for clock_mhz in (LOW_MHZ, DEFAULT, LOW_MHZ):
        order(setter, clock_mhz, measure=False)
    assert lessor.asked == ["take"]
    assert setter.close(5.0)
    assert (lessor.asked, gpu.at_mhz) == (["take", "give back"], HIGH_MHZ)


def test_without_a_lease_no_clock_is_touched(make: MakeSetter, lessor: NotedLessor) -> None:
    gpu, setter = make()
    gpu.at_mhz, lessor.refusal, told = HIGH_MHZ + 1, "no warden", list[str]()
    setter.on_no_lease = told.append
    setter.wish(Wish(LOW_MHZ))
    wait_until(lambda: told == ["no warden"], "it is told why")
    assert setter.close(5.0)
    assert (gpu.at_mhz, setter.sets, lessor.asked) == (HIGH_MHZ + 1, 0, ["take"])


def test_an_order_that_hangs_counts_as_stuck_until_it_returns(make: MakeSetter) -> None:
    gpu, setter = make()
    assert setter.stuck_s(time.monotonic()) < 0
    gpu.returns.clear()
    setter.wish(Wish(LOW_MHZ))
    wait_until(lambda: setter.stuck_s(time.monotonic()) > 0.1, "it is stuck")
    setter.release()
    wait_until(lambda: setter.stuck_s(time.monotonic()) > 0.2, "it is stuck still")
    gpu.returns.set()
    wait_until(lambda: setter.stuck_s(time.monotonic()) < 0, "it is well")


def test_a_rank_that_wishes_the_clock_in_force_has_nothing_ordered_and_no_turn_taken(make: MakeSetter) -> None:
    _, setter = make()
    order(setter, LOW_MHZ, measure=False)
    due = list[bool]()

    def follow(now: float) -> float:
        if not due:
            setter.wish(Wish(LOW_MHZ, HIGH_MHZ, now + 3600.0))
            due.append(setter.is_due)
        return now + 3600.0

    setter.follow = follow
    setter.rouse()
    wait_until(lambda: bool(due), "the rank is followed")
    assert due == [False]
    assert setter.ordered_mhz == LOW_MHZ


def test_a_wish_for_the_clock_before_is_not_lost_while_another_one_is_being_ordered(make: MakeSetter) -> None:
    gpu, setter = make()
    order(setter, LOW_MHZ, measure=False)
    gpu.returns.clear()
    setter.wish(Wish(HIGH_MHZ))
    wait_until(lambda: setter.stuck_s(time.monotonic()) > 0, "an order is under way")
    setter.wish(Wish(LOW_MHZ))
    gpu.returns.set()
    wait_until(lambda: setter.sets == 3, "both are ordered")
    assert gpu.at_mhz == LOW_MHZ


def test_a_wish_is_not_taken_while_the_clock_is_being_released(make: MakeSetter) -> None:
    gpu, setter = make()
    order(setter, LOW_MHZ, measure=False)
    gpu.returns.clear()
    setter.release()
    assert not setter.wish(Wish(LOW_MHZ))
    gpu.returns.set()
    wait_until(lambda: not setter.leased and setter.wish(Wish(LOW_MHZ)), "it is taken once it is released")
    wait_until(lambda: gpu.at_mhz == LOW_MHZ, "and done")


def test_whatever_fails_in_an_order_is_told_and_the_clock_released(make: MakeSetter, lessor: NotedLessor) -> None:
    gpu, setter = make()
    told: list[str] = []
    setter.on_failure = told.append
    order(setter, LOW_MHZ, measure=False)

    class Full:
        """What fails once."""

        def wait(self) -> None:
            gpu.returns = usual
            raise MemoryError

    usual, gpu.returns = gpu.returns, cast(threading.Event, Full())
    setter.wish(Wish(HIGH_MHZ // 2))
    wait_until(lambda: told == ["MemoryError()"], "it is told")
    wait_until(lambda: not setter.leased and gpu.at_mhz == HIGH_MHZ, "the clock is released")
    assert setter.alive


def test_a_capped_gpu_that_wavers_below_its_highest_clock_has_lags_in_both_directions(make: MakeSetter) -> None:
    gpu, setter = make()
    chance = random.Random(3)
    gpu.held = lambda clock_mhz: clock_mhz if clock_mhz < 1200 else 1230 + 15 * chance.choice((-2, -1, 0, 1, 2))
    for _ in range(101):
        setter.settled.add(gpu.held(HIGH_MHZ))
    for clock_mhz in (LOW_MHZ, DEFAULT, LOW_MHZ, DEFAULT):
        order(setter, clock_mhz, measure=True)
    wait_until(lambda: (lag := setter.lag()) is not None and lag.samples >= 3, "switches are measured both ways")
    reads = gpu.reads
    order(setter, 1380, measure=True)
    order(setter, DEFAULT, measure=True)
    assert setter.close(5.0)
    assert gpu.reads == reads, "between two clocks that the cap makes one there is nothing to see"


def test_a_clock_that_was_to_be_ordered_again_is_not_once_it_has_been_released() -> None:
    gpu, lessor = MovedGpu(capped=False), NotedLessor()
    setter = ClockSetter(cast(Gpu, gpu), lessor)
    setter.wish(Wish(900))
    wait_until(lambda: setter.sets == 1, "the clock is ordered")
    with setter._lock:
        setter._again = setter._releasing = True
    setter.rouse()
    wait_until(lambda: not setter.leased, "it is given back")
    time.sleep(0.1)
    assert setter.sets == 2, "one order, one reset"
    assert setter.close(5.0)
