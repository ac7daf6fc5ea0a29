"""Whose turn it is to have something computed: a few at a time, and nobody's many keep another's from theirs.

Next is who has the fewest under way, then whose last turn is longest ago. What may come later waits for all else, and
never takes the last free place.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

__all__ = ["Turns"]


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    whose: str
    later: bool
    number: int
    admitted: asyncio.Future[None]


class Turns:
    """At most `most` at a time."""

    def __init__(self, most: int) -> None:
        self._most, self._numbers = most, count()
        self._running = Counter[str]()
        self._last_turn: dict[str, int] = {}
        self._waiting: list[_Waiting] = []

    @asynccontextmanager
    async def turn(self, whose: str, *, later: bool = False) -> AsyncIterator[None]:
        """Waits for it, and has it until the block ends."""
        one = _Waiting(whose, later, next(self._numbers), asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._admit()
        try:
            await one.admitted
            yield
        finally:
            if one in self._waiting:
                self._waiting.remove(one)
            else:
                self._running[whose] -= 1
            self._admit()

    def _admit(self) -> None:
        while (free := self._most - self._running.total()) > 0:
            ready = [one for one in self._waiting if not one.later or free > 1 or self._most == 1]
            if not ready:
                return
            one = min(ready, key=self._precedence)
            self._waiting.remove(one)
            self._running[one.whose] += 1
            self._last_turn[one.whose] = next(self._numbers)
            if not one.admitted.cancelled():
                one.admitted.set_result(None)

    def _precedence(self, one: _Waiting) -> tuple[bool, int, int, int]:
        return one.later, self._running[one.whose], self._last_turn.get(one.whose, -1), one.number
