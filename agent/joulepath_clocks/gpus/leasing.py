"""The agent's side of the warden: a GPU is leased there before its clock is first touched, and given back after.

A thread of its own beats: it names the leases whose GPU's threads are well. What the warden revokes, and everything
once it is gone, is to be let go of. The old connection stays open until all is let go of: its end tells the warden that
no late order comes any more.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from joulepath_warden.wire import BEAT_S, DEADLINE_S, MAX_MESSAGE_BYTES, SOCKET_NAME, Answer, Request, Verb

__all__ = ["Leasing", "Lessor"]

log = logging.getLogger(__name__)

_NONE_YET: Final = "the warden hasn't been asked yet"


class Lessor(Protocol):
    """Who leases GPUs."""

    def take(self, uuid: str) -> str:
        """Leases a GPU, or tells in a sentence why not."""

    def give_back(self, uuid: str) -> None:
        """Ends a lease: the clock is reset for good."""


class Leasing:
    """The connection to the warden, made again whenever it ends."""

    def __init__(self, state_dir: Path, is_well: Callable[[str], bool], on_revoked: Callable[[str, str], None]) -> None:
        """Connects; beats once started.

        Args:
            state_dir: Folder with the warden's socket.
            is_well: Whether all that a GPU's lease depends on lives; asked before each beat.
            on_revoked: Is told a GPU that is to be let go of, and why; from any thread, perhaps several times.
        """
        self._path = state_dir / SOCKET_NAME
        self._is_well, self._on_revoked = is_well, on_revoked
        self.trouble = _NONE_YET
        """Why nothing is leased, in a sentence; empty while GPUs are."""
        self.in_doubt: tuple[str, ...] = ()
        """GPUs that may be locked by nobody, as the warden last said."""
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leasing", daemon=True)
        self._connect()

    def start(self) -> None:
        """Starts to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Hangs up."""
        self._stop.set()
        with self._lock:
            self._close("the agent stops")

    def take(self, uuid: str) -> str:
        """See Lessor."""
        self._held.add(uuid)  # before it is asked for: what comes to an end at once is let go of as well
        refused = self._ask(Request(Verb.TAKE, (uuid,))).refused
        if refused:
            self._held.discard(uuid)
        return refused

    def give_back(self, uuid: str) -> None:
        """See Lessor."""
        self._held.discard(uuid)
        self._ask(Request(Verb.GIVE_BACK, (uuid,)))

    def _run(self) -> None:
        while not self._stop.wait(BEAT_S):
            try:
                if self.trouble and not self._held:
                    self._connect()
                elif not self.trouble:
                    self._beat()
            except Exception:
                log.exception("the warden can't be talked to; trying again")

    def _beat(self) -> None:
        answer = self._ask(Request(Verb.BEAT, tuple(filter(self._is_well, tuple(self._held)))))
        if not answer.refused:
            self.in_doubt = answer.in_doubt
        for uuid in self._held.intersection(answer.revoked):
            self._on_revoked(uuid, "the warden has revoked it: the agent's beats were late, or it stops")

    def _connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(DEADLINE_S)
        trouble = ""
        try:
            connection.connect(str(self._path))
            greeting = Answer.decode(connection.recv(MAX_MESSAGE_BYTES))
            trouble, self.in_doubt = greeting.refused, greeting.in_doubt
        except (OSError, ValueError) as error:
            trouble = f"no warden answers at {self._path} ({error})"
        with self._lock:
            self._close(trouble)
            if trouble:
                connection.close()
            else:
                self._socket = connection

    def _close(self, trouble: str) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if trouble != self.trouble:
            if trouble:
                # At the start of a pod the warden's container is the later one.
                level = logging.INFO if self.trouble == _NONE_YET else logging.ERROR
                log.log(level, "%s: no clock is locked, ranks run default clocks", trouble)
            else:
                log.info("clocks are leased from the warden at %s", self._path)
        self.trouble = trouble

    def _ask(self, request: Request) -> Answer:
        """The answer; a refusal without a warden."""
        with self._lock:
            if self._socket is None or self.trouble:
                return Answer(self.trouble)
            try:
                self._socket.send(request.encode())
                return Answer.decode(self._socket.recv(MAX_MESSAGE_BYTES))
            except (OSError, ValueError) as error:
                trouble = self.trouble = f"the warden is gone ({error})"
        log.error("%s: every clock is reset, ranks run default clocks", trouble)
        for uuid in tuple(self._held):
            self._on_revoked(uuid, trouble)
        return Answer(trouble)
