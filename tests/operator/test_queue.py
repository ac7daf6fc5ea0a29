"""The keyed queue: nothing lost, nothing at once, failures come back."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from joulepath_operator.control.queue import KeyedQueue
from tests.examples import examples


async def _drained(queue: KeyedQueue[str]) -> None:
    while len(queue):
        await asyncio.sleep(0.001)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@examples(40)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), min_size=1, max_size=30),
    st.sets(st.integers(0, 20), max_size=5),
    st.integers(1, 4),
)
def test_every_change_is_seen_after_it_was_made(adds: list[tuple[str, int]], failing: set[int], workers: int) -> None:
    """Whatever the interleaving and the failures: each key is handled successfully after its last change."""
    changes: Counter[str] = Counter()
    seen: dict[str, int] = {}
    running: set[str] = set()
    calls = 0

    async def handle(key: str) -> None:
        nonlocal calls
        calls += 1
        assert key not in running, "one key, two workers"
        running.add(key)
        version = changes[key]
        await asyncio.sleep(0.0005)
        running.discard(key)
        if calls in failing:
            raise RuntimeError("as asked")
        seen[key] = version

    async def play() -> None:
        queue: KeyedQueue[str] = KeyedQueue(handle, workers=workers, settle_s=0, backoff_s=(0.001, 0.002))
        task = asyncio.ensure_future(queue.run())
        for key, pause in adds:
            changes[key] += 1
            queue.add(key)
            for _ in range(pause):
                await asyncio.sleep(0)
        await _drained(queue)
        await _stop(task)

    asyncio.run(play())
    assert seen == dict(changes)


def test_no_more_keys_are_handled_at_once_than_there_are_workers() -> None:
    most = 0
    running: set[int] = set()

    async def handle(key: int) -> None:
        nonlocal most
        running.add(key)
        most = max(most, len(running))
        await asyncio.sleep(0)
        running.discard(key)

    async def play() -> None:
        queue: KeyedQueue[int] = KeyedQueue(handle, workers=3, settle_s=0)
        task = asyncio.ensure_future(queue.run())
        for key in range(20):
            queue.add(key)
        while len(queue):
            await asyncio.sleep(0.001)
        await _stop(task)

    asyncio.run(play())
    assert most == 3


def test_keys_added_in_a_burst_are_handled_once() -> None:
    handled: list[str] = []

    async def handle(key: str) -> None:
        handled.append(key)

    async def play() -> None:
        queue: KeyedQueue[str] = KeyedQueue(handle, settle_s=0.02)
        task = asyncio.ensure_future(queue.run())
        for _ in range(100):
            queue.add("a")
            queue.add("b")
        await _drained(queue)
        await _stop(task)

    asyncio.run(play())
    assert sorted(handled) == ["a", "b"]


def test_back_off_doubles_up_to_its_limit_and_ends_with_success() -> None:
    times: list[float] = []
    errors: list[str] = []

    async def handle(key: str) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) < 6:
            raise RuntimeError("not yet")

    async def play() -> None:
        queue: KeyedQueue[str] = KeyedQueue(handle, settle_s=0, backoff_s=(0.01, 0.04), on_error=errors.append)
        task = asyncio.ensure_future(queue.run())
        queue.add("a")
        await _drained(queue)
        await _stop(task)

    asyncio.run(play())
    gaps = [after - before for before, after in pairwise(times)]
    assert all(gap >= least for gap, least in zip(gaps, (0.01, 0.02, 0.04, 0.04, 0.04), strict=True))
    assert errors == ["a"] * 5


def test_a_key_that_asks_to_come_back_does_and_resync_brings_all() -> None:
    handled: Counter[str] = Counter()

    async def handle(key: str) -> float | None:
        handled[key] += 1
        return 0.001 if key == "again" and handled[key] < 5 else None

    async def play() -> None:
        queue: KeyedQueue[str] = KeyedQueue(handle, settle_s=0)
        task = asyncio.ensure_future(queue.run(0.01, lambda: ["resynced"]))
        queue.add("again")
        while handled["again"] < 5 or handled["resynced"] < 3:
            await asyncio.sleep(0.001)
        await _stop(task)

    asyncio.run(play())
    assert handled["again"] == 5
