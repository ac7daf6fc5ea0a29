"""kopf takes a long list as it comes: it holds little of it at a time, however many Jobs a cluster has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from kopf._cogs.clients import watching
from kopf._core.reactor import queueing

from joulepath_operator.control.settings import settings

OBJECTS: Final = 2000
PAGE_S: Final = 0.01
"""An API server takes longer for one."""


def test_of_a_long_list_no_more_is_held_than_a_few_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings()
    listed, handled, most = 0, 0, 0

    async def listing(**_: Any) -> AsyncIterator[Any]:
        nonlocal listed, most
        for number in range(OBJECTS):
            if number % (chosen.watching.chunk_size or OBJECTS) == 0:
                await asyncio.sleep(PAGE_S)
            listed += 1
            most = max(most, listed - handled)
            yield {"type": None, "object": {"metadata": {"uid": str(number), "name": str(number)}}}
        yield watching.Bookmark.LISTED

    async def handle(**_: Any) -> None:
        nonlocal handled
        handled += 1

    monkeypatch.setattr(watching, "infinite_watch", listing)
    asyncio.run(queueing.watcher(namespace=None, settings=chosen, resource="jobs", processor=handle))  # type: ignore[arg-type]
    assert handled == OBJECTS
    assert most < OBJECTS // 4
