"""Resets under way: each in a thread of its own, so that one that hangs or fails delays no other."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from joulepath_warden.driver import AbsentError

__all__ = ["Resets"]

log = logging.getLogger(__name__)

_RETRY_S: Final = 0.1
_LONGEST_RETRY_S: Final = 1.0
_ABSENT_RETRY_S: Final = 5.0


class Resets:
    """Does what it is asked for until that works."""

    def __init__(self, reset: Callable[[str], None], on_done: Callable[[], None]) -> None:
        """`reset` raises a DriverError unless it has worked; `on_done` is called from other threads."""
        self._reset, self._on_done = reset, on_done
        self._lock = threading.Lock()
        self._asked: Counter[str] = Counter()
        self._done: list[str] = []
        self._absent: set[str] = set()

    def ask(self, entry: str) -> None:
        """Wants a reset that begins after this call; returns at once."""
        with self._lock:
            self._asked[entry] += 1
            begun = self._asked[entry] == 1
        if begun:
            threading.Thread(target=self._run, args=(entry,), name=f"reset-{entry}", daemon=True).start()

    def take_done(self) -> tuple[str, ...]:
        """Those that have worked since the last call, and that weren't asked for again."""
        with self._lock:
            done, self._done = self._done, []
            return tuple(entry for entry in done if entry not in self._asked)

    @property
    def under_way(self) -> frozenset[str]:
        """Those not taken as done yet, but for what isn't there to be reset."""
        with self._lock:
            return (frozenset(self._asked) - self._absent) | frozenset(self._done)

    def _run(self, entry: str) -> None:
        retry_s, told = _RETRY_S, ""
        while True:
            with self._lock:
                asked = self._asked[entry]
            try:
                self._reset(entry)
            except Exception as error:  # whatever it is: a reset that was asked for never gets lost
                absent = isinstance(error, AbsentError)
                with self._lock:
                    (self._absent.add if absent else self._absent.discard)(entry)
                if told != str(error):
                    told = str(error)
                    log.error("%s; trying again until it works", told)
                time.sleep(_ABSENT_RETRY_S if absent else retry_s)
                retry_s = min(_LONGEST_RETRY_S, 2 * retry_s)
                continue
            with self._lock:
                if self._asked[entry] != asked:
                    continue
                del self._asked[entry]
                self._absent.discard(entry)
                self._done.append(entry)
            self._on_done()
            return
