"""Probes are answered for an event loop, not by it."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request

import pytest

from joulepath_operator import pulse
from joulepath_operator.pulse import Pulse


def status(port: int) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_loop_that_is_busy_is_alive_and_one_that_hangs_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> list[int]:
        beating = asyncio.ensure_future(one.beat())
        await asyncio.sleep(0)
        seen = [status(server.port)]  # the loop is here, and turns no further
        monkeypatch.setattr(pulse, "_ALIVE_S", 0.01)
        time.sleep(0.02)
        seen.append(status(server.port))
        beating.cancel()
        return seen

    one = Pulse()
    server = one.serve("127.0.0.1", 0)
    try:
        assert asyncio.run(play()) == [200, 503]
    finally:
        server.close()
