"""A queue of keys, each handled by one task at a time.

Keys that are asked for again before they are handled are handled once; one that is asked for while it is being handled
is handled again afterwards, so that whoever adds a key after a change can be sure that the change is seen. A key whose
handling fails comes back with exponential back-off. What stands behind a key is looked up when it is handled:
the queue carries no state that could get old.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable
from contextlib import suppress
from typing import Generic, TypeVar

__all__ = ["KeyedQueue"]

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


class KeyedQueue(Generic[K]):
    """Calls `handle(key)`; the seconds that it returns, if any, are when the key is to be handled again.

    workers: how many keys at once; settle_s: how long a new key waits for more changes; backoff_s: first and longest
    pause after a failure.
    """

    def __init__(
        self,
        handle: Callable[[K], Awaitable[float | None]],
        *,
        workers: int = 16,
        settle_s: float = 0.2,
        backoff_s: tuple[float, float] = (0.5, 60.0),
        on_error: Callable[[K], object] = lambda key: None,
    ) -> None:
        self._handle, self._workers, self._settle_s = handle, workers, settle_s
        self._backoff_s, self._on_error = backoff_s, on_error
        self._due: dict[K, float] = {}
        self._active: set[K] = set()
        self._failures: dict[K, int] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due) + len(self._active)

    def add(self, key: K, after_s: float | None = None) -> None:
        """Handle this key in `after_s` seconds (soon, if None), or earlier if it is due earlier already."""
        due = asyncio.get_running_loop().time() + (self._settle_s if after_s is None else after_s)
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            self._changed.set()

    async def run(self, resync_s: float | None = None, keys: Callable[[], Iterable[K]] = tuple) -> None:
        """Works until it is cancelled; every `resync_s` seconds all `keys()` are handled once more."""
        async with asyncio.TaskGroup() as group:
            if resync_s is not None:
                group.create_task(self._resync(resync_s, keys))
            while True:
                group.create_task(self._work(await self._take()))

    async def _resync(self, every_s: float, keys: Callable[[], Iterable[K]]) -> None:
        while True:
            for key in keys():
                self.add(key)
            await asyncio.sleep(every_s)

    async def _work(self, key: K) -> None:
        try:
            after_s = await self._handle(key)
            self._failures.pop(key, None)
        except Exception:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            first, longest = self._backoff_s
            after_s = min(longest, first * 2 ** min(failures - 1, 30))
            log.exception("%s: failed %d times in a row; next try in %.1f s", key, failures, after_s)
            self._on_error(key)
        finally:
            self._active.discard(key)
        if after_s is not None:
            self.add(key, after_s)
        self._changed.set()

    async def _take(self) -> K:
        """The key that is due first, and not being handled, once fewer than `workers` are."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            waiting = self._due.items() if len(self._active) < self._workers else ()
            free = ((due, key) for key, due in waiting if key not in self._active)
            due, key = min(free, key=lambda item: item[0], default=(None, None))
            if due is not None and key is not None and due <= loop.time():
                del self._due[key]
                self._active.add(key)
                return key
            # Not wait_for: in Python 3.11 it can swallow the cancellation that ends the queue.
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._changed.wait()
