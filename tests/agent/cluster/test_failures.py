"""How often work is done that goes well, or fails."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from joulepath_agent.cluster.failures import repeat


class Waits(threading.Event):
    """Is set once it has been waited for three times."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_s: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        """See Event; returns at once."""
        if timeout is not None and timeout > 0:
            self.waited_s.append(timeout)
        if len(self.waited_s) == 3:
            self.set()
        return self.is_set()


def _well() -> None:
    """As of a watch that the server ends at once."""


def _badly() -> None:
    raise OSError("no way there")


@pytest.mark.parametrize("work", [_well, _badly])
def test_what_ends_at_once_is_not_done_again_at_once(work: Callable[[], None]) -> None:
    stop, done = Waits(), 0

    def counted() -> None:
        nonlocal done
        done += 1
        if done > 100:
            stop.set()
        work()

    repeat("work", counted, stop)
    assert done == 3
