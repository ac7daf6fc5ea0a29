"""The agent's end of the channel to the clocks (`joulepath_clocks.channel`): a connection, made again when it ends."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from joulepath_clocks.channel.words import (
    LOCK_NAME,
    MOST_BYTES,
    SOCKET_NAME,
    AgentWord,
    ChannelError,
    ClocksWord,
    decode,
    encode,
)
from joulepath_warden.lock import Lock

__all__ = ["Channel"]

log = logging.getLogger(__name__)

_AGAIN_S: Final = 0.2
_QUEUE_BYTES: Final = 2**20
_WAIT_S: Final = 3.0
"""Clocks that say nothing for so long aren't there: each second there is news."""


class Channel:
    """One connection at a time, and the thread that reads it."""

    def __init__(
        self,
        state_dir: Path,
        hear: Callable[[ClocksWord], None],
        on_begin: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        """`hear` is given what the clocks say, the others are told when they are there and when they are gone; all in
        the channel's thread."""
        self._state_dir, self._hear, self._on_begin, self._on_end = state_dir, hear, on_begin, on_end
        self._socket: socket.socket | None = None
        self._sending = threading.Lock()
        self._heard_at_s = 0.0
        self._told = ""
        self._chosen = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="channel", daemon=True)

    def start(self) -> None:
        """Begins to connect."""
        self._thread.start()

    def stop(self) -> None:
        """Hangs up."""
        self._stop.set()
        if (connection := self._socket) is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def alive(self) -> bool:
        """Whether its thread lives."""
        return self._thread.is_alive()

    @property
    def chosen(self) -> bool:
        """Whether this is the agent that the clocks serve, or would: no other has that right while this one lives."""
        return self._chosen

    @property
    def connected(self) -> bool:
        """Whether the clocks are there."""
        return self._socket is not None and time.monotonic() - self._heard_at_s < _WAIT_S

    def say(self, word: AgentWord) -> bool:
        """Says something, from any thread; whether the clocks were there to take it."""
        message = encode(word)
        with self._sending:
            connection = self._socket
            if connection is None:
                return False
            try:
                connection.send(message, socket.MSG_NOSIGNAL)
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    log.error(
                        "%s of %d bytes can't be told: raise net.core.wmem_max", type(word).__name__, len(message)
                    )
                    return False
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                return False
        return True

    def _run(self) -> None:
        path = self._state_dir / SOCKET_NAME
        lock: Lock | None = None  # the clocks serve the newest agent: without it, two would take them from each other
        while not self._stop.wait(_AGAIN_S):
            try:
                lock = lock or Lock(self._state_dir / LOCK_NAME, makes=False)
                if not lock.take():
                    self._tell("the clocks serve another agent on this node (a second release?): waiting for it to end")
                    continue
                self._chosen = True
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                    connection.settimeout(_WAIT_S)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE_BYTES)
                    connection.connect(str(path))
                    self._tell(f"the clocks are there, at {path}")
                    self._heard_at_s = time.monotonic()
                    self._socket = connection
                    try:
                        self._on_begin()
                        self._read(connection)
                    finally:
                        self._socket = None
                        self._on_end()
            except OSError as error:
                self._tell(f"the clocks aren't there ({path}: {error}): nothing is measured, no plan played")
            except Exception:
                log.exception("talking with the clocks failed; trying again")
        if lock is not None:
            lock.close()

    def _read(self, connection: socket.socket) -> None:
        buffer = bytearray(2 * MOST_BYTES)  # one for each message would be asked of the kernel each time
        while not self._stop.is_set():
            size = connection.recv_into(buffer)
            if not size:
                raise ConnectionError("they hung up")
            self._heard_at_s = time.monotonic()
            try:
                self._hear(decode(bytes(memoryview(buffer)[:size])))  # type: ignore[arg-type]
            except ChannelError as error:
                raise ConnectionError(f"they say what can't be read: {error}") from None

    def _tell(self, what: str) -> None:
        if what != self._told:
            self._told = what
            log.info("%s", what)
