"""What keeps a clock locked."""

from __future__ import annotations

import logging

import pytest

from joulepath_clocks.gpus.lease import End, Lease
from joulepath_clocks.gpus.setter import ClockSetter
from joulepath_clocks.gpus.wish import Wish


class NotedSetter(ClockSetter):
    """A setter that has no GPU and notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Wish | None] = []

    def wish(self, wish: Wish) -> bool:
        self.told.append(wish)
        return True

    def release(self) -> None:
        self.told.append(None)


def test_a_lease_is_held_from_a_wish_until_it_ends_and_ends_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ends: list[End] = []
    setter = NotedSetter()
    lease = Lease(setter, "rank 3 of pod-a", ends.append)
    lease.end(End.PLAN_OVER)
    assert (lease.held, setter.told, ends) == (False, [], [])
    lease.order(Wish(1200))
    lease.hold()
    lease.order(Wish(900))
    assert lease.held
    lease.end(End.PLAN_CHANGED)
    lease.end(End.CONNECTION_CLOSED)
    lease.order(Wish(1200))
    lease.hold()
    lease.order(Wish(600))
    lease.end(End.PROCESS_GONE)
    assert setter.told == [Wish(900), None, Wish(600), None]
    assert ends == [End.PLAN_CHANGED, End.PROCESS_GONE]
    assert caplog.messages == [f"rank 3 of pod-a: lease ended, {end}" for end in ("PlanChanged", "ProcessGone")]


def test_an_end_that_every_evaluation_brings_is_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ends: list[End] = []
    lease = Lease(NotedSetter(), "rank 3 of pod-a", ends.append)
    for end in (End.OTHER_WORK, End.STEP_BROKEN_OFF):
        lease.hold()
        lease.end(end)
    assert ends == [End.OTHER_WORK, End.STEP_BROKEN_OFF]
    assert not caplog.messages
