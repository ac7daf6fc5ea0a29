"""The clocks' end of the channel: the agent comes and goes, nothing here ever waits for it.

What is as it is (GPUs, ranks, the node) is looked at four times a second, and said where it differs from what this
agent was told last; so an agent that is new, or that was slow for a while, hears all of it. What happens (iterations,
records, looks) is said once: where the socket's queue is full it is lost, and with it measurements, never a clock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final

from joulepath_clocks.channel.words import (
    LOCK_NAME,
    MOST_BYTES,
    SOCKET_NAME,
    AgentWord,
    ChannelError,
    ClocksWord,
    Gone,
    decode,
    encode,
)

__all__ = ["Server"]

log = logging.getLogger(__name__)

_TURN_S: Final = 0.25
_QUEUE_BYTES: Final = 2**20
_WORDS_AT_ONCE: Final = 64
_CREDENTIALS: Final = struct.Struct("iII")


class Server:
    """The socket that an agent connects to."""

    def __init__(
        self,
        state_dir: Path,
        news: Callable[[], Mapping[object, ClocksWord]],
        hear: Callable[[AgentWord], None],
        on_turn: Callable[[float], None],
    ) -> None:
        """Listens at once.

        Args:
            state_dir: Folder of the socket.
            news: All that is as it is now, each by a name of its own, in the order in which to say it.
            hear: Is given what the agent says, in this thread.
            on_turn: Runs four times a second and more in this thread.

        Raises:
            OSError: The socket can't be made.
        """
        self._news, self._hear, self._on_turn = news, hear, on_turn
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = state_dir / SOCKET_NAME
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        path.chmod(0o600)
        (state_dir / LOCK_NAME).touch(mode=0o600)
        self._listener.listen(4)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._agent: socket.socket | None = None
        self._told: dict[object, ClocksWord] = {}
        self.lost = 0
        """Words that the agent didn't take."""
        self._sending = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="channel", daemon=True)

    def start(self) -> None:
        """Begins to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and hangs up."""
        self._stop.set()
        self.wake()
        if self._thread.is_alive():
            self._thread.join(1.0)
        self._listener.close()
        self._hang_up()

    @property
    def connected(self) -> bool:
        """Whether there is an agent."""
        return self._agent is not None

    def wake(self) -> None:
        """There is news: says so at once."""
        os.eventfd_write(self._wake, 1)

    def say(self, word: ClocksWord) -> bool:
        """Says what has happened, from any thread; whether there was an agent that took it."""
        if self._agent is None:
            return False
        message = encode(word)
        with self._sending:
            if self._agent is None:
                return False
            try:
                self._agent.send(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except OSError:  # its queue is full, or it is gone, which is seen by whoever reads
                self.lost += 1
                return False
        return True

    def _run(self) -> None:
        while not self._stop.is_set():
            ready = {key.fileobj for key, _ in self._selector.select(_TURN_S)}
            try:
                self._turn(ready)
            except Exception:
                log.exception("talking with the agent failed; it is hung up on")
                self._hang_up()

    def _turn(self, ready: Collection[object]) -> None:
        if self._wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
        if self._listener in ready:
            self._accept()
        if self._agent is not None and self._agent in ready:
            self._read(self._agent)
        self._on_turn(time.monotonic())
        if self._agent is not None:
            self._tell()

    def _accept(self) -> None:
        """The newest agent is the one: the other is dead, or its pod is being replaced."""
        agent, _ = self._listener.accept()
        agent.setblocking(False)
        _, user, _ = _CREDENTIALS.unpack(agent.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if user not in (0, os.geteuid()):
            agent.close()
            return
        self._hang_up()
        agent.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE_BYTES)
        self._selector.register(agent, selectors.EVENT_READ)
        self._told = {}
        self._agent = agent
        log.info("an agent is there")

    def _hang_up(self) -> None:
        with self._sending:
            agent, self._agent = self._agent, None
        if agent is not None:
            self._selector.unregister(agent)
            agent.close()

    def _read(self, agent: socket.socket) -> None:
        for _ in range(_WORDS_AT_ONCE):
            try:
                message = agent.recv(2 * MOST_BYTES)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                log.warning("the agent is gone: plans go on for their time to live, ranks that come have to wait")
                self._hang_up()
                return
            try:
                self._hear(decode(message))  # type: ignore[arg-type]
            except ChannelError as error:
                log.error("the agent says what can't be read (%s); it is hung up on", error)
                self._hang_up()
                return

    def _tell(self) -> None:
        news = self._news()
        for rank in self._told.keys() - news.keys():
            if not isinstance(rank, int) or self.say(Gone(rank)):
                del self._told[rank]
        for name, word in news.items():
            if self._told.get(name) != word and self.say(word):
                self._told[name] = word
