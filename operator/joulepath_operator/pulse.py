"""The pulse of an event loop: whether it still turns, for the thread that answers probes in its stead."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from joulepath_crds.serving.pages import PageServer, state

__all__ = ["Pulse"]

_BEAT_S: Final = 1.0
_ALIVE_S: Final = 30.0
"""A loop that handles a large list or waits for a core may be late; one that hangs stays late."""


class Pulse:
    """Of the event loop that `beat` runs in."""

    def __init__(self) -> None:
        self._beaten_at_s = time.monotonic()

    async def beat(self) -> None:
        """Beats until it is cancelled."""
        while True:
            self._beaten_at_s = time.monotonic()
            await asyncio.sleep(_BEAT_S)

    @property
    def alive(self) -> bool:
        """Whether it has beaten lately."""
        return time.monotonic() - self._beaten_at_s < _ALIVE_S

    def serve(self, host: str, port: int) -> PageServer:
        """Serves /healthz and /readyz.

        Raises:
            OSError: The port is taken.
        """
        pages = {path: lambda: state(self.alive) for path in ("/healthz", "/readyz")}
        return PageServer("health", host, port, pages)
