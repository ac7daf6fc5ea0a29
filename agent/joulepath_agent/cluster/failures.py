"""What to do where the API server can't be reached: work goes on."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["BusyError", "TooLargeError", "repeat"]

log = logging.getLogger(__name__)

_BACKOFF_S: Final = 0.5
_LONGEST_BACKOFF_S: Final = 10.0
_LONGEST_WAIT_S: Final = 60.0
"""Whatever the API server says."""
_LASTED_S: Final = 60.0
"""Work that went well for so long has not failed again and again."""
_TURN_S: Final = 0.25
"""That work takes at least, since a server may end each watch as soon as it has begun."""


class BusyError(OSError):
    """The API server has too much to do; `wait_s` is how long it says to wait, 0 if it doesn't."""

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class TooLargeError(OSError):
    """An answer of the API server is larger than anybody here reads."""


def repeat(name: str, work: Callable[[], None], stop: threading.Event) -> None:
    """Does the work again and again until it is to stop; after a failure a little later, up to ten seconds or as long
    as the API server says, and up to half as long again by chance: what failed on all nodes comes back by and by."""
    backoff_s = _BACKOFF_S
    while not stop.is_set():
        begun, told_s = time.monotonic(), 0.0
        try:
            work()
            backoff_s = _BACKOFF_S
            stop.wait(begun + _TURN_S - time.monotonic())
            continue
        except OSError as error:
            log.warning("%s: the API server said %s; the agent goes on and tries again", name, error)
            if isinstance(error, BusyError):
                told_s = min(_LONGEST_WAIT_S, error.wait_s)
        except Exception:
            log.exception("%s failed; trying again", name)
        if time.monotonic() - begun > _LASTED_S:
            backoff_s = _BACKOFF_S
        stop.wait(max(backoff_s, told_s) * random.uniform(1.0, 1.5))
        backoff_s = min(_LONGEST_BACKOFF_S, 2 * backoff_s)
