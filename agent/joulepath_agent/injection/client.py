"""The connection to the node's injector (`joulepath_injector.words`), made again when it ends.

Where there is no injector, as where pods get the trainer by volumes, nothing is said of that.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from joulepath_agent.injection.admission import Admission
from joulepath_agent.injection.registry import Registry
from joulepath_injector.words import FOLDER, MOST_BYTES, SOCKET_NAME, Answer, Came, Done, Left, Runtime, decode, encode

__all__ = ["Client"]

log = logging.getLogger(__name__)

_AGAIN_S: Final = 0.2
_TURN_S: Final = 0.2


class Client:
    """One connection at a time, and the thread that listens."""

    def __init__(self, state_dir: Path, registry: Registry, chosen: Callable[[], bool]) -> None:
        """Connects once started.

        Args:
            state_dir: Folder with the injector's.
            registry: Is told of pods and containers.
            chosen: Whether this is the agent that the node's clocks serve: the injector serves that one.
        """
        self._path = state_dir / FOLDER / SOCKET_NAME
        self._registry, self._chosen = registry, chosen
        self._socket: socket.socket | None = None
        self._sending = threading.Lock()
        self._told = ""
        self._stop = threading.Event()

    def start(self, admission: Admission) -> None:
        """Begins to connect; `admission` answers, by `say`."""
        threading.Thread(target=self._run, args=(admission,), name="injection", daemon=True).start()

    def stop(self) -> None:
        """Hangs up, in the background."""
        self._stop.set()

    def say(self, answer: Answer) -> None:
        """Sends an answer, if somebody is there to take it."""
        with self._sending:
            if self._socket is not None:
                try:
                    self._socket.send(encode(answer), socket.MSG_NOSIGNAL)
                except OSError as error:
                    log.warning("the injector takes no answer (%s): a container may start without the trainer", error)

    def _run(self, admission: Admission) -> None:
        while not self._stop.wait(_AGAIN_S):
            if not self._chosen():
                continue
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                    connection.settimeout(_TURN_S)
                    connection.connect(str(self._path))
                    self._tell("the injector is there")
                    self._listen(connection, admission)
            except FileNotFoundError:
                pass
            except (OSError, ValueError) as error:
                self._tell(f"the injector isn't there ({self._path}: {error}): containers start without the trainer")
            except Exception:
                log.exception("talking with the injector failed; trying again")

    def _listen(self, connection: socket.socket, admission: Admission) -> None:
        self._registry.begin()
        with self._sending:
            self._socket = connection
        try:
            while not self._stop.is_set():
                try:
                    if not (packet := connection.recv(MOST_BYTES)):
                        raise ConnectionError("it hung up")
                    self._hear(packet, admission)
                except TimeoutError:
                    pass
                admission.turn(time.monotonic())
        finally:
            self._registry.end()
            with self._sending:
                self._socket = None

    def _hear(self, packet: bytes, admission: Admission) -> None:
        match decode(packet):
            case Came() as pod:
                self._registry.came(pod)
                admission.consider(pod)
            case Left(uid):
                self._registry.left(uid)
            case Done() as word:
                self._registry.done(word)
            case Runtime() as runtime:
                self._registry.runtime(runtime)
            case Answer():
                raise ValueError("it answers")

    def _tell(self, what: str) -> None:
        if what != self._told:
            self._told = what
            log.info("%s", what)
