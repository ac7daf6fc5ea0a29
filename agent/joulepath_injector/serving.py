"""The agent's end of the injector: one agent at a time, the newest; nothing here is ever waited for.

What is to be said goes through a queue to a thread that waits for the agent in the place of all others. An agent that
doesn't read for long is hung up on; it connects anew, and is told all that is there.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Final

from joulepath_injector.pods import Pods
from joulepath_injector.words import MOST_BYTES, SOCKET_NAME, Answer, InjectorWord, decode, encode

__all__ = ["Server"]

log = logging.getLogger(__name__)

_AGAIN_S: Final = 1.0
_MOST_WORDS: Final = 2**16
_TAKES_S: Final = struct.pack("ll", 10, 0)


class Server:
    """The socket that an agent connects to."""

    def __init__(self, folder: Path, pods: Pods) -> None:
        """Listens at once.

        Raises:
            OSError: The socket can't be made.
        """
        self._pods = pods
        path = folder / SOCKET_NAME
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(4)

    def start(self) -> None:
        """Begins to serve, in threads that end with the process."""
        threading.Thread(target=self._accept, name="agents", daemon=True).start()

    def _accept(self) -> None:
        before: _Agent | None = None
        while True:
            try:
                connection, _ = self._listener.accept()
                if before is not None:
                    before.hang_up()
                before = _Agent(connection, self._pods)
                before.start()
            except Exception:  # too many files are open, or no thread can be started
                log.exception("no agent is let in; trying again")
                time.sleep(_AGAIN_S)


class _Agent:
    """A connected agent."""

    def __init__(self, connection: socket.socket, pods: Pods) -> None:
        self._connection, self._pods = connection, pods
        self._queue: queue.Queue[InjectorWord | None] = queue.Queue(_MOST_WORDS)
        self._writer = threading.Thread(target=self._write, name="agent-words", daemon=True)

    def start(self) -> None:
        """Begins to talk; where it can't, the agent is hung up on.

        Raises:
            OSError: The connection has ended.
            RuntimeError: No thread can be started.
        """
        try:
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TAKES_S)
            self._writer.start()
            self._pods.listen(self._tell)
            threading.Thread(target=self._read, name="agent", daemon=True).start()
        except BaseException:
            self._end()
            raise
        log.info("an agent is there")

    def hang_up(self) -> None:
        """Ends the connection, and with it both threads."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _tell(self, word: InjectorWord) -> None:
        try:
            self._queue.put_nowait(word)
        except queue.Full:
            self.hang_up()

    def _write(self) -> None:
        try:
            while (word := self._queue.get()) is not None:
                self._connection.send(encode(word), socket.MSG_NOSIGNAL)
        except OSError:
            self.hang_up()

    def _read(self) -> None:
        try:
            while packet := self._connection.recv(MOST_BYTES):
                word = decode(packet)
                if isinstance(word, Answer):
                    self._pods.answer(word)
            log.info("the agent is gone")
        except (OSError, ValueError) as error:
            log.warning("the agent is hung up on: %s", error)
        finally:
            self._end()

    def _end(self) -> None:
        self._pods.leave(self._tell)
        self.hang_up()
        with contextlib.suppress(queue.Full):  # then it is sending, which has failed
            self._queue.put_nowait(None)
        if self._writer.ident is not None:  # it was started
            self._writer.join()
        self._connection.close()
