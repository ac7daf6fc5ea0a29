"""An agent as far as the injector meets one: it answers by a label of the pod, and keeps what it hears."""

from __future__ import annotations

import socket
import threading
import time
from collections import defaultdict
from pathlib import Path

from joulepath_injector.words import MOST_BYTES, Answer, Came, Done, Left, decode, encode
from joulepath_rules import JOB_LABELS

__all__ = ["TRAINS", "AgentDouble"]

TRAINS = JOB_LABELS[0]
"""The label that names the containers that train, by underscores; no other one is told."""


class AgentDouble:
    """Connects whenever it can, until it is closed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.speaks = threading.Event()
        """Whether it answers; what came while it didn't is answered once it does."""
        self.speaks.set()
        self.done: dict[str, dict[str, Done]] = defaultdict(dict)
        """By name of the pod and of the container."""
        self.left = set[str]()
        """Names of pods."""
        self._names = dict[str, str]()
        self._connection: socket.socket | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """Hangs up for good."""
        self._closed.set()
        self.speaks.set()
        if self._connection is not None:
            self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)

    @property
    def connected(self) -> bool:
        """Whether the injector is there."""
        return self._connection is not None

    def _run(self) -> None:
        while not self._closed.is_set():
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                try:
                    connection.connect(str(self._path))
                    self._connection = connection
                    while packet := connection.recv(MOST_BYTES):
                        self._hear(packet, connection)
                except OSError:
                    pass
                self._connection = None
            time.sleep(0.05)

    def _hear(self, packet: bytes, connection: socket.socket) -> None:
        match decode(packet):
            case Came() as came:
                self._names[came.uid] = came.name
                self.left.discard(came.name)
                self.speaks.wait()
                named = came.labels.get(TRAINS, "")
                connection.send(encode(Answer(came.uid, tuple(named.split("_")) if named else ())))
            case Done() as done:
                self.done[self._names[done.uid]][done.container] = done
            case Left() as left:
                self.left.add(self._names[left.uid])
