"""The number of this attempt: equal on all ranks of a gang of processes, another one after each restart.

TORCHELASTIC_RESTART_COUNT isn't it: every torchrun counts its own restarts, from 0 in a new pod. What all ranks share
is the store of their default process group. Rank 0 writes the number into it at its first training step: the seconds
since 2020 on its own clock, or one more than the number that it finds there, so that numbers grow from one attempt to
the next. The others read it from their second step on. Not before: the store may outlive a gang (it does where torchrun
itself serves it) and still hold the number of the gang before; a rank's second step begins after rank 0's first one
did, since they exchange what they compute.

The requests are made in a thread of their own and on a connection of their own: one request at a time goes over a
store's connection, and what the training waits for there may come in minutes. The training itself waits a moment, once,
so that a rank's second step finds what rank 0's first one wrote. Whoever can't find the number soon goes by
TORCHELASTIC_RESTART_COUNT.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from joulepath_trainer.identity import default_store, rank_and_world

__all__ = ["Attempt"]

_log = logging.getLogger("joulepath")
_KEY: Final = "joulepath/attempt"
_EPOCH_S: Final = 1_577_836_800
_MOST: Final = 2**31
_PATIENCE_STEPS: Final = 8
_PATIENCE_S: Final = 5.0
_MOMENT_S: Final = 0.5
_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.5
_AT_EXIT_S: Final = 1.0


class Attempt:
    """Finds the number, asked once at the begin of each training step."""

    def __init__(
        self, wall_clock_s: Callable[[], float] = time.time, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall_clock_s, self._clock_s = wall_clock_s, clock_s
        self._number: int | None = None
        self._asked = 0
        self._give_up_at_s = math.inf
        self._inquiry: _Inquiry | None = None

    def ask(self) -> int | None:
        """The number; None if it isn't known yet. Raises nothing, and waits for half a second at most, once."""
        if self._number is None:
            self._asked += 1
            if self._asked == 1:
                self._give_up_at_s = self._clock_s() + _PATIENCE_S
            try:
                self._number = self._find()
            except Exception as error:
                _log.debug("this attempt's number can't be asked for: %r", error)
            if self._number is None and self._asked >= _PATIENCE_STEPS and self._clock_s() >= self._give_up_at_s:
                self._number = _own_restarts()
                if self._inquiry is not None:
                    self._inquiry.ended = True
        return self._number

    def _find(self) -> int | None:
        if self._inquiry is not None:
            return self._inquiry.number
        rank, world_size = rank_and_world()
        now_s = max(0, int(self._wall_clock_s()) - _EPOCH_S) % _MOST
        if world_size == 1:
            return now_s
        store = default_store()
        if not hasattr(store, "clone"):
            return _own_restarts()
        if rank and self._asked == 1:
            return None
        self._inquiry = _Inquiry(None if rank else now_s)
        self._inquiry.start()
        self._inquiry.join(_MOMENT_S)
        return self._inquiry.number


class _Inquiry(threading.Thread):
    """Writes (rank 0) or reads the number, again and again until that succeeds or nobody waits for it any more.

    Nothing in here is locked that a forked child could find locked; in such a child the thread doesn't run.
    """

    def __init__(self, now_s: int | None) -> None:
        """`now_s` is the number that rank 0 writes; None reads it."""
        super().__init__(name="joulepath-attempt", daemon=True)
        self.number: int | None = None
        self.ended = False
        self._now_s = now_s
        self._written: int | None = None

    def run(self) -> None:
        # Python's end must not catch this thread on its way back from a request: torch would abort the process.
        atexit.register(self._end)
        store, pause_s = None, _FIRST_PAUSE_S
        while not self.ended:
            try:
                store = store or default_store().clone()
                self.number = self._read(store) if self._now_s is None else self._write(store, self._now_s)
                if self.number is not None:
                    break
            except Exception as error:
                _log.debug("the ranks' store doesn't tell this attempt's number: %r", error)
                store = None
            time.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
        atexit.unregister(self._end)

    def _read(self, store: Any) -> int | None:
        return int(store.get(_KEY)) % _MOST if store.check([_KEY]) else None

    def _write(self, store: Any, now_s: int) -> int | None:
        if self._written is None:
            before = self._read(store)
            self._written = now_s if before is None else max(now_s, before + 1) % _MOST
        store.set(_KEY, str(self._written))
        return self._written if self._read(store) == self._written else None

    def _end(self) -> None:
        self.ended = True
        self.join(_AT_EXIT_S)


def _own_restarts() -> int:
    count = os.environ.get("TORCHELASTIC_RESTART_COUNT", "")
    return int(count) if count.isdecimal() else 0
