"""What to do where the API server can't be reached: work goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["repeat"]

log = logging.getLogger(__name__)

_BACKOFF_S: Final = 0.5
_LONGEST_BACKOFF_S: Final = 10.0
_LASTED_S: Final = 60.0
"""Work that went well for so long has not failed again and again."""
_TURN_S: Final = 0.25
"""That work takes at least, since a server may end each watch as soon as it has begun."""


def repeat(name: str, work: Callable[[], None], stop: threading.Event) -> None:
    """Does the work again and again until it is to stop; after a failure a little later, up to ten seconds."""
    backoff_s = _BACKOFF_S
    while not stop.is_set():
        begun = time.monotonic()
        try:
            work()
            backoff_s = _BACKOFF_S
            stop.wait(begun + _TURN_S - time.monotonic())
            continue
        except OSError as error:
            log.warning("%s: the API server said %s; the agent goes on and tries again", name, error)
        except Exception:
            log.exception("%s failed; trying again", name)
        if time.monotonic() - begun > _LASTED_S:
            backoff_s = _BACKOFF_S
        stop.wait(backoff_s)
        backoff_s = min(_LONGEST_BACKOFF_S, 2 * backoff_s)
