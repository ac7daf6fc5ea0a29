"""Following the GPUs: one thread looks at the shared pages of all ranks and lets each rank act on what it finds.

It looks every half millisecond, except that while an instruction runs whose end is not due, it sleeps until shortly
before that end. Timer slack is set to 1 us for this thread: the default of 50 us would add to every look.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import Final

from joulepath_clocks.gpus.lease import End
from joulepath_clocks.ranks.rank import Rank
from joulepath_clocks.ranks.reason import Reason

__all__ = ["Follower"]

log = logging.getLogger(__name__)

_PR_SET_TIMERSLACK: Final = 29
_POLL_S: Final = 0.0005
_AHEAD_S: Final = 0.001
_AHEAD_SHARE: Final = 0.05
_LONGEST_S: Final = 0.02
_SILENT_S: Final = 2.0
_IDLE_S: Final = 0.05
_FAILED: Final = "the agent failed to follow this rank, see its log"


class Follower:
    """The thread that polls."""

    def __init__(self, ranks: Callable[[], Collection[Rank]]) -> None:
        self._ranks = ranks
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self.looked_at_s = time.monotonic()
        """When it last looked: a follower that hangs must not leave clocks locked."""

    def start(self) -> None:
        """Starts polling."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()

    def _run(self) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)
        while not self._stop.is_set():
            ranks = self._ranks()
            for rank in ranks:
                try:
                    rank.poll()
                except Exception:
                    log.exception("following rank %d of %s failed", rank.hello.rank, rank.pod.name)
                    rank.stop(Reason(End.FOLLOWER_FAILED, _FAILED, final=True))
            now = self.looked_at_s = time.monotonic()
            time.sleep(min((_pause_s(rank, now) for rank in ranks), default=_IDLE_S))


def _pause_s(rank: Rank, now: float) -> float:
    left_s = rank.progress.expected_s - now
    if left_s <= 0:
        silent = rank.progress.silent_s(now) > _SILENT_S
        return _LONGEST_S if silent else _POLL_S
    ahead_s = max(_AHEAD_S, _AHEAD_SHARE * left_s)
    return min(_LONGEST_S, max(_POLL_S, left_s - ahead_s))
