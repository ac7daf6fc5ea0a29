"""Sessions with the container runtime, one after the other.

The runtime tells a plugin that comes all that is there, with each container's environment, and some of what tenants
can make of that it can't send, or dies of. So one that doesn't come to the end of it is left in peace, for longer each
time.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from joulepath_injector.nri.frames import NriError
from joulepath_injector.nri.plugin import Plugin, Session, connect
from joulepath_injector.pods import Pods
from joulepath_injector.words import NO_SOCKET, Runtime

__all__ = ["Sessions"]

log = logging.getLogger(__name__)

_SHORTEST_S: Final = 1.0
_LONGEST_S: Final = 300.0


class Sessions:
    """Those with the runtime that listens at a path."""

    def __init__(self, path: Path, plugin: Plugin, pods: Pods) -> None:
        self._path, self._plugin, self._pods = path, plugin, pods
        self._failed_s = _SHORTEST_S
        self._said = ""

    def serve(self) -> float:
        """Serves one until it is over, and tells the agent why it is; how long to leave the runtime in peace then."""
        session = None
        try:
            with connect(self._path) as trunk:
                session = Session(trunk, self._plugin)
                session.serve()
        except (OSError, NriError) as error:
            why = str(error)
            if session is None and isinstance(error, FileNotFoundError | ConnectionRefusedError):
                why = f"{NO_SOCKET} at {self._path}: {error.strerror}"
        pause_s = _SHORTEST_S
        if session is not None and session.synchronized:
            self._failed_s = _SHORTEST_S
        elif session is not None:
            why = f"the runtime hasn't told what is there: {why}"
            pause_s, self._failed_s = self._failed_s, min(2 * self._failed_s, _LONGEST_S)
        self._pods.runtime(Runtime(told=False, why=why))
        if why != self._said:
            log.warning("no container gets the trainer until the next session with the runtime: %s", why)
        self._said = why
        return pause_s
