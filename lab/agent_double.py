"""A small agent: the other side of the wire, a real server on a real socket, for tests of the trainer."""

from __future__ import annotations

import mmap
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from joulepath_trainer.wire.messages import Hello, IterationRecord, Reply
from joulepath_trainer.wire.page import PAGE_BYTES, MarkerEntry, PageReader
from joulepath_trainer.wire.parts import Gathering
from joulepath_trainer.wire.protocol import MAX_MESSAGE_BYTES

__all__ = ["AgentDouble", "Answer", "ConnectedRank", "accepted", "refuse", "welcome"]

Answer = Callable[[socket.socket], None]
"""Answers a hello at its connection."""


def welcome(connection: socket.socket) -> None:
    """What the real agent answers to a rank that it accepts."""
    connection.send(Reply(accepted=True).encode())


def refuse(connection: socket.socket) -> None:
    """What it answers to one that it never will."""
    connection.send(Reply(accepted=False, reason="no such GPU", final=True).encode())


@contextmanager
def accepted(path: Path, begin: Callable[[], object]) -> Iterator[socket.socket]:
    """The connection of a rank that asks in `begin` and is welcome; what it says then is read by nobody else."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        begin()
        with listener.accept()[0] as connection:
            connection.recv(MAX_MESSAGE_BYTES)
            welcome(connection)
            yield connection


@dataclass
class ConnectedRank:
    """What the agent knows of one connection."""

    hello: Hello
    page: mmap.mmap
    since: int
    """The last marker that was enqueued before it."""
    records: list[IterationRecord] = field(default_factory=list)

    gathering: Gathering = field(default_factory=Gathering)

    def entries(self) -> list[MarkerEntry]:
        """All markers that were enqueued since, oldest first (as long as the ring holds them)."""
        reader = PageReader(memoryview(self.page))
        found = [reader.entry(sequence) for sequence in range(self.since + 1, reader.enqueued + 1)]
        assert None not in found
        return [entry for entry in found if entry is not None]

    @property
    def marker(self) -> int:
        """Number of the last marker that was passed."""
        return PageReader(memoryview(self.page)).marker


class AgentDouble:
    """Listens at a path until it is closed.

    With `hang_up_after`, it breaks each connection after as many records, as its death would.
    """

    def __init__(self, path: Path, answer: Answer = welcome, hang_up_after: int | None = None) -> None:
        self._path, self._answer, self._hang_up_after = path, answer, hang_up_after
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._ranks: dict[socket.socket, ConnectedRank | None] = {}
        self._gone: list[ConnectedRank] = []
        self._wake, self._woken = socket.socketpair()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> AgentDouble:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wake.send(b"x")
        self._thread.join()
        for held in (*self._ranks, self._listener, self._wake, self._woken):
            held.close()
        self._path.unlink()

    @property
    def gone(self) -> int:
        """How many ranks have come and gone."""
        with self._changed:
            return len(self._gone)

    def ranks(self, count: int, timeout_s: float = 20) -> list[ConnectedRank]:
        """The ranks by number, once `count` of them have come and gone."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._gone) >= count, timeout_s), f"{len(self._gone)} of {count}"
            return sorted(self._gone, key=lambda rank: rank.hello.rank)

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener, self._woken, *self._ranks], [], [])
            if self._woken in ready:
                return
            with self._changed:
                for each in ready:
                    if each is self._listener:
                        self._ranks[each.accept()[0]] = None
                    else:
                        self._receive(each)
                self._changed.notify_all()

    def _receive(self, connection: socket.socket) -> None:
        descriptors: list[int] = []
        try:
            message, descriptors, _, _ = socket.recv_fds(connection, MAX_MESSAGE_BYTES, 1)
        except OSError:
            message = b""
        rank = self._ranks[connection]
        if not message:
            self._forget(connection)
        elif rank is None:
            page = mmap.mmap(descriptors[0], PAGE_BYTES, prot=mmap.PROT_READ)
            os.close(descriptors[0])
            since = PageReader(memoryview(page)).enqueued
            self._ranks[connection] = ConnectedRank(Hello.decode(message), page, since)
            self._answer(connection)
        else:
            if (record := rank.gathering.take(message)) is not None:
                rank.records.append(record)
            if len(rank.records) == self._hang_up_after:
                self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        rank = self._ranks.pop(connection)
        connection.close()
        if rank is not None:
            self._gone.append(rank)
