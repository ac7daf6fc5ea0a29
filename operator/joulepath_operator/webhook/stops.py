"""Where injection is stopped, as the operator has written it down: asked for now and then, never by a pod that waits.

What can't be read leaves things as they are known. Once a stop has lasted, one pod may try: one for each process like
this, as they don't know of each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from joulepath_operator.facts.admission import Stop

__all__ = ["Stops"]

log = logging.getLogger(__name__)

_AGAIN_S: Final = 5.0


class Stops:
    """`read` asks for those that there are, by namespace, and blocks."""

    def __init__(self, read: Callable[[], Mapping[str, Stop]]) -> None:
        self._read = read
        self._known: Mapping[str, Stop] = {}
        self._tried: dict[str, str] = {}
        self._failing = False

    async def follow(self) -> None:
        """Looks again and again, until it is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_AGAIN_S)

    async def look(self) -> None:
        """Asks once."""
        try:
            self._known = await asyncio.to_thread(self._read)
        except Exception as error:
            if not self._failing:
                log.warning("whether injection is stopped somewhere can't be read, it goes on as it was: %s", error)
            self._failing = True
            return
        self._failing = False
        self._tried = {namespace: tried for namespace, tried in self._tried.items() if namespace in self._known}

    def obstacle(self, namespace: str, starts_first: bool = True, dry_run: bool = False) -> str:
        """Why a pod isn't injected now, as a clause; empty where it is. A dry run is no try.

        Args:
            namespace: Its own.
            starts_first: Whether it would get an init container.
            dry_run: Whether it is only asked what would be.
        """
        stop = self._known.get(namespace)
        if stop is None or not stop.holds or not stop.hinders(starts_first):
            return ""
        if _now() >= stop.until and self._tried.get(namespace) != stop.until:
            if not dry_run:
                self._tried[namespace] = stop.until
            return ""
        told = f"as that is stopped in namespace {namespace} since {stop.since} ({stop.why})"
        if stop.denied:
            return told
        return (
            f"{told}; pods whose containers with GPUs set PYTHONPATH in their env need no init container, and are "
            "injected all the same"
        )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
