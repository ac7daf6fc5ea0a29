"""How long is waited after a failure, and after what went well."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from joulepath_agent.cluster.failures import BusyError, repeat


class Stop(threading.Event):
    """Notes how long it is waited for, and passes the time at once."""

    def __init__(self, waits: int) -> None:
        super().__init__()
        self.waited_s, self._waits = list[float](), waits

    def wait(self, timeout: float | None = None) -> bool:
        """See Event."""
        self.waited_s.append(timeout or 0.0)
        if len(self.waited_s) == self._waits:
            self.set()
        return self.is_set()


def waits_after(error: Callable[[], Exception], waits: int) -> list[float]:
    """How long is waited after each of so many failures in a row."""
    stop = Stop(waits)

    def work() -> None:
        raise error()

    repeat("work", work, stop)
    return stop.waited_s


def test_after_each_failure_it_is_waited_twice_as_long_up_to_ten_seconds_and_by_chance_a_half_more() -> None:
    waited_s = waits_after(lambda: OSError("no"), 8)
    for found_s, least_s in zip(waited_s, (0.5, 1, 2, 4, 8, 10, 10, 10), strict=True):
        assert least_s <= found_s <= 1.5 * least_s
    assert len({found_s / least_s for found_s, least_s in zip(waited_s[-3:], (10, 10, 10), strict=True)}) > 1


@pytest.mark.parametrize(("told_s", "least_s"), [(7.0, 7.0), (3600.0, 60.0), (0.0, 0.5)])
def test_a_server_that_is_busy_is_left_alone_for_as_long_as_it_says_within_a_minute(
    told_s: float, least_s: float
) -> None:
    (waited_s,) = waits_after(lambda: BusyError("later", told_s), 1)
    assert least_s <= waited_s <= 1.5 * least_s


def test_what_goes_well_and_ends_at_once_is_not_done_again_at_once() -> None:
    """As a watch that the server ends as soon as it has begun."""
    stop, done = Stop(3), 0

    def work() -> None:
        nonlocal done
        done += 1
        if done > 100:
            stop.set()

    repeat("work", work, stop)
    assert (done, len(stop.waited_s)) == (3, 3)
    assert all(0 < waited_s <= 0.25 for waited_s in stop.waited_s)
