"""The number of this attempt: equal on all ranks of a gang of processes, another one after each restart.

TORCHELASTIC_RESTART_COUNT isn't it: every torchrun counts its own restarts, from 0 in a new pod. What all ranks share
is the store of their default process group. Rank 0 writes the number into it at its first training step: the seconds
since 2020 on its own clock, so that numbers grow from one attempt to the next. The others read it from their second
step on. Not before: the store may outlive a gang (it does where torchrun itself serves it) and still hold the number of
the gang before; a rank's second step begins after rank 0's first one did, since they exchange what they compute.

It costs one or two requests to the store, made in the first steps only, in which torch itself waits for that store to
connect the ranks. Whoever can't find the number soon goes by TORCHELASTIC_RESTART_COUNT.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Final

from joulepath_trainer.identity import default_store, rank_and_world

__all__ = ["Attempt"]

_log = logging.getLogger("joulepath")
_KEY: Final = "joulepath/attempt"
_EPOCH_S: Final = 1_577_836_800
_MOST: Final = 2**31
_PATIENCE_STEPS: Final = 8


class Attempt:
    """Finds the number, asked once at the begin of each training step."""

    def __init__(self, wall_clock_s: Callable[[], float] = time.time) -> None:
        self._wall_clock_s = wall_clock_s
        self._number: int | None = None
        self._asked = 0

    def ask(self) -> int | None:
        """The number; None if it isn't known yet. Raises nothing."""
        if self._number is None:
            self._asked += 1
            try:
                self._number = self._find()
            except Exception as error:
                _log.debug("the ranks' store doesn't tell this attempt's number: %r", error)
                self._number = _own_restarts()
        return self._number

    def _find(self) -> int | None:
        rank, world_size = rank_and_world()
        number = max(0, int(self._wall_clock_s()) - _EPOCH_S) % _MOST
        if world_size == 1:
            return number
        store = default_store()
        if store is None:
            return _own_restarts()
        if rank == 0:
            store.set(_KEY, str(number))
            return number
        if self._asked == 1:
            return None
        if store.check([_KEY]):
            return int(store.get(_KEY)) % _MOST
        return None if self._asked < _PATIENCE_STEPS else _own_restarts()


def _own_restarts() -> int:
    count = os.environ.get("TORCHELASTIC_RESTART_COUNT", "")
    return int(count) if count.isdecimal() else 0
