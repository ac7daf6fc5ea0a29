"""The sockets: who comes in, what they may claim, and when they are gone.

One thread and one selector for the doors, the connections and the pidfds of the training processes. What may take
seconds (asking the kubelet and the API server where a pod stands) runs in a small pool. A peer is believed nothing that
isn't checked; a bad message closes its own connection and nothing else.

Nor may one pod keep the others waiting: each has its `limits`, and of its hellos only two are in the pool at once, in
their order; a pod's hello waits for at most two of each other pod. Of a connection that says more than its budget,
nothing is read for a while: what its socket doesn't hold then, the trainer drops.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from joulepath_clocks.descriptors import Disposal, receive
from joulepath_clocks.doors import Door, PodDoors
from joulepath_clocks.gpus.lease import End
from joulepath_clocks.peers.budget import BUDGET, Budget
from joulepath_clocks.peers.limits import Allowance, PodLimits
from joulepath_clocks.peers.peer import Identify, Peer
from joulepath_clocks.peers.refusal import PeerRefusedError
from joulepath_clocks.peers.sent import sent_process
from joulepath_clocks.ranks.page import SharedPage
from joulepath_clocks.ranks.rank import Rank
from joulepath_trainer.wire.messages import PROCESS, Hello, OldPython, Reply
from joulepath_trainer.wire.protocol import MAX_MESSAGE_BYTES, OtherVersionError, WireError

__all__ = ["Admit", "Endpoint"]

log = logging.getLogger(__name__)

Admit = Callable[[Hello, Peer, SharedPage], Rank]
"""Makes a rank of a hello and its page, or refuses the peer by a PeerRefusedError."""

_HELLO_LIMIT_S: Final = 10.0
_TICK_S: Final = 0.25
_MESSAGES_AT_ONCE: Final = 16
_LOGS_PER_MINUTE: Final = 20


@dataclass(eq=False, slots=True)
class _Connection:
    """A peer that is connected."""

    socket: socket.socket
    door: Door
    """That it came by."""
    peer: Peer
    since_s: float
    allowance: Allowance
    """Bytes that may be read from it."""
    hello: Hello | None = None
    page: SharedPage | None = None
    asking: bool = False
    """Whether its hello is being checked; meanwhile its pidfd stays open."""
    rank: Rank | None = None
    asked_for_process: bool = False
    """Whether its next message may bring the pidfd that the kernel doesn't give."""
    ended: bool = False
    paused: bool = False
    """Whether nothing is read from it for now."""


class Endpoint:
    """The server of the sockets."""

    def __init__(
        self,
        path: Path,
        identify: Identify,
        admit: Admit,
        on_tick: Callable[[float], None],
        on_refusal: Callable[[str], None] = lambda _: None,
        budget: Budget = BUDGET,
        *,
        on_old_python: Callable[[str, OldPython], None] = lambda *_: None,
        pods: Path | None = None,
        proc: Path = Path("/proc"),
    ) -> None:
        """Listens at once.

        Args:
            path: Of the socket for all pods.
            identify: Tells who is at it.
            admit: Makes ranks.
            on_tick: Runs four times a second in this thread.
            on_refusal: Is told each refusal's code.
            budget: What peers may make it do.
            on_old_python: Is told the UID of each pod with a Python that is too old for the trainer.
            pods: Where each pod may have a folder with a socket of its own.
            proc: The host's /proc.

        Raises:
            OSError: The socket for all pods can't be made.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._pods = None if pods is None else PodDoors(pods, budget.pods, budget.doors_per_pod)
        self._proc = proc
        self._identify, self._admit = identify, admit
        self._on_tick, self._on_refusal, self._on_old_python = on_tick, on_refusal, on_old_python
        self._selector = selectors.DefaultSelector()
        self._doors: set[Door] = set()
        self._listen_at(Door(path))
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._woken)
        self._connections: set[_Connection] = set()
        self._budget = budget
        self._limits = PodLimits(budget)
        self._waiting: list[_Connection] = []
        """With a hello that isn't in the pool yet, oldest first."""
        self._answers: deque[tuple[_Connection, Rank | PeerRefusedError]] = deque()
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="admit")
        self._disposal = Disposal()
        self._log_times: deque[float] = deque(maxlen=_LOGS_PER_MINUTE)
        self.ticked_at_s = time.monotonic()
        """When it last looked after everything."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="endpoint", daemon=True)

    def start(self) -> None:
        """Starts serving."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and closes the socket. Ranks are closed by their owner."""
        self._stop.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join(1.0)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._disposal.stop()
        for connection in self._connections:
            connection.socket.close()
        for door in self._doors:
            door.close()

    @property
    def listening(self) -> bool:
        """Whether peers are being served."""
        return self._thread.is_alive() and not self._stop.is_set()

    def _run(self) -> None:
        ticked_s = 0.0
        while not self._stop.is_set():
            looked_at_s = time.clock_gettime(time.CLOCK_BOOTTIME)
            ready = self._selector.select(_TICK_S)
            busy = {key.fileobj for key, _ in ready}
            for door in self._doors:
                if door.socket not in busy:
                    door.empty_at_s = looked_at_s
            for key, _ in ready:
                try:
                    key.data()
                except Exception:
                    log.exception("serving the socket failed")
            if (now := time.monotonic()) - ticked_s >= _TICK_S:
                ticked_s = now
                self._tick(now)

    def _tick(self, now: float) -> None:
        self.ticked_at_s = now
        try:
            self._on_tick(now)
        except Exception:
            log.exception("looking after the leases failed")
        try:
            self._look_for_doors()
        except Exception:
            log.exception("looking for the sockets of pods failed")
        self._limits.forget(now)
        for connection in tuple(self._connections):
            if connection.rank is not None and not connection.rank.alive:
                self._end(connection)
            elif connection.rank is None and not connection.asking and now - connection.since_s > _HELLO_LIMIT_S:
                self._end(connection, why=f"it said nothing for {_HELLO_LIMIT_S:.0f} s")
            elif connection.paused and connection.allowance.ready(now):
                connection.paused = False
                self._listen_to(connection)

    # doors

    def _look_for_doors(self) -> None:
        if self._pods is None:
            return
        new, gone = self._pods.look()
        for door in gone:
            self._doors.remove(door)
            self._selector.unregister(door.socket)
            door.close()
        for connection in [one for one in self._connections if one.door in gone]:
            self._end(connection, End.POD_GONE)
        for door in new:
            self._listen_at(door)

    def _listen_at(self, door: Door) -> None:
        self._doors.add(door)
        self._selector.register(door.socket, selectors.EVENT_READ, lambda: self._accept(door))

    # connections

    def _accept(self, door: Door) -> None:
        for client in door.accept():
            self._meet(client, door)

    def _meet(self, client: socket.socket, door: Door) -> None:
        try:
            peer = self._identify(client, door.empty_at_s, door.pod_uid)
        except PeerRefusedError as refusal:
            self._tell_refusal(client, refusal)
            client.close()
            return
        now = time.monotonic()
        try:
            self._limits.connect(peer.pod_uid, now)
        except PeerRefusedError as refusal:
            self._count_refusal(refusal)
            peer.close()
            client.close()
            return
        budget = self._budget
        allowance = Allowance(budget.record_burst_bytes, budget.record_bytes_per_s, now)
        connection = _Connection(client, door, peer, now, allowance)
        self._connections.add(connection)
        self._listen_to(connection)

    def _listen_to(self, connection: _Connection) -> None:
        self._selector.register(connection.socket, selectors.EVENT_READ, lambda: self._read(connection))

    def _read(self, connection: _Connection) -> None:
        now = time.monotonic()
        for _ in range(_MESSAGES_AT_ONCE):
            if not connection.allowance.ready(now):
                connection.paused = True
                self._selector.unregister(connection.socket)
                return
            try:
                wanted = (connection.hello is None or connection.asked_for_process) and not self._disposal.full
                message, descriptors = receive(connection.socket, MAX_MESSAGE_BYTES + 1, descriptors=wanted)
            except BlockingIOError:
                return
            except OSError as error:
                self._end(connection, why=str(error))
                return
            if connection.hello is None and message:
                if OldPython.is_meant(message):
                    self._learn_python(connection, message, descriptors)
                else:
                    self._greet(connection, message, descriptors)
                return
            asked, connection.asked_for_process = connection.asked_for_process, False
            if asked and message == PROCESS:
                self._learn_process(connection, descriptors)
                continue
            self._disposal.take(descriptors)
            if not message:
                self._end(connection)
                return
            connection.allowance.spend(max(len(message), self._budget.least_record_bytes))
            try:
                if connection.rank is None:
                    raise WireError("a message came before the answer to the hello")
                connection.rank.record(message)
            except WireError as error:
                self._on_refusal("BadMessage")
                self._end(connection, why=str(error))
                return

    def _greet(self, connection: _Connection, message: bytes, descriptors: list[int]) -> None:
        """Takes a hello with its page; only what is known to be memory is closed here."""
        page: SharedPage | None = None
        try:
            hello = Hello.decode(message)
            page = _page_of(descriptors)
        except OtherVersionError as error:
            what = f"{error}: agent and trainer are of different releases, a pod that is started anew gets this one's"
            self._turn_down(connection, PeerRefusedError("OtherVersion", what))
        except _BadPageError as error:
            # None may have come because the agent has none left itself.
            self._turn_down(connection, PeerRefusedError("BadPage", str(error), final=bool(descriptors)))
        except WireError as error:
            self._on_refusal("BadMessage")
            self._end(connection, why=str(error))
        else:
            connection.hello, connection.page, connection.asking = hello, page, True
            self._waiting.append(connection)
            self._fill_pool()
        if page is None:
            self._disposal.take(descriptors)
        else:
            os.close(descriptors[0])  # the mapping is enough

    def _learn_python(self, connection: _Connection, message: bytes, descriptors: list[int]) -> None:
        """Takes note of a process that no trainer speaks for, and lets it go: it says nothing else."""
        self._disposal.take(descriptors)
        why = ""
        try:
            self._on_old_python(connection.peer.pod_uid, OldPython.decode(message))
        except WireError as error:
            self._on_refusal("BadMessage")
            why = str(error)
        self._end(connection, why=why)

    def _turn_down(self, connection: _Connection, refusal: PeerRefusedError) -> None:
        self._tell_refusal(connection.socket, refusal)
        self._end(connection)

    def _fill_pool(self) -> None:
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            if connection.ended:
                connection.peer.close()
                if connection.page is not None:
                    connection.page.close()
            elif self._limits.begin_hello(connection.peer.pod_uid):
                self._pool.submit(self._answer, connection)
            else:
                self._waiting.append(connection)

    def _answer(self, connection: _Connection) -> None:
        assert connection.hello is not None
        assert connection.page is not None
        try:
            answer: Rank | PeerRefusedError = self._admit(connection.hello, connection.peer, connection.page)
        except PeerRefusedError as refusal:
            answer = refusal
        except Exception:
            log.exception("placing a rank failed")
            answer = PeerRefusedError("Internal", "the agent failed to place this rank, see its log")
        self._answers.append((connection, answer))
        self._wake()

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while self._answers:
            connection, answer = self._answers.popleft()
            if not isinstance(answer, Rank) and connection.page is not None:
                connection.page.close()
            connection.asking = False
            self._limits.end_hello(connection.peer.pod_uid)
            gone = connection.ended
            if isinstance(answer, Rank):
                self._welcome(connection, answer)
            elif gone:
                self._count_refusal(answer)
            else:
                self._turn_down(connection, answer)
            if gone:
                connection.peer.close()
        self._fill_pool()

    def _welcome(self, connection: _Connection, rank: Rank) -> None:
        connection.rank = rank
        if connection.ended:
            rank.close(End.CONNECTION_CLOSED)
        elif _send(connection.socket, Reply(accepted=True, wants_process=connection.peer.pidfd is None)):
            connection.asked_for_process = connection.peer.pidfd is None
            self._await_end(connection)
        else:
            self._end(connection)

    def _learn_process(self, connection: _Connection, descriptors: list[int]) -> None:
        """Takes the pidfd that a peer was asked for; without a sound one, its connection and its markers must do."""
        assert connection.rank is not None
        peer = sent_process(descriptors, connection.peer.pod_uid, self._proc)
        if peer is None:
            self._disposal.take(descriptors)
            return
        connection.peer = connection.rank.peer = peer
        self._await_end(connection)

    def _await_end(self, connection: _Connection) -> None:
        if (pidfd := connection.peer.pidfd) is not None:
            self._selector.register(pidfd, selectors.EVENT_READ, lambda: self._end(connection, End.PROCESS_GONE))

    def _end(self, connection: _Connection, end: End = End.CONNECTION_CLOSED, why: str = "") -> None:
        """Ends a connection and its rank. Only this thread closes descriptors that the selector knows."""
        if connection.ended:
            return
        connection.ended = True
        if why:
            self._log(f"connection of {connection.peer} closed: {why}")
        self._connections.discard(connection)
        self._limits.disconnect(connection.peer.pod_uid)
        for watched in (connection.socket, connection.peer.pidfd):
            with contextlib.suppress(KeyError):
                if watched is not None:
                    self._selector.unregister(watched)
        if connection.rank is not None:
            connection.rank.close(end)
        connection.socket.close()
        if not connection.asking:
            connection.peer.close()

    def _tell_refusal(self, client: socket.socket, refusal: PeerRefusedError) -> None:
        self._count_refusal(refusal)
        _send(client, Reply(accepted=False, reason=str(refusal), final=refusal.final))

    def _count_refusal(self, refusal: PeerRefusedError) -> None:
        self._on_refusal(refusal.code)
        self._log(f"a rank was refused: {refusal}")

    def _log(self, text: str) -> None:
        """Peers may be hostile: the log must not fill the disk."""
        now = time.monotonic()
        if len(self._log_times) < _LOGS_PER_MINUTE or now - self._log_times[0] > 60:
            self._log_times.append(now)
            log.warning("%s", text)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"x")


class _BadPageError(WireError):
    """What came with a hello is no page."""


def _page_of(descriptors: list[int]) -> SharedPage:
    if len(descriptors) != 1:
        raise _BadPageError(f"a hello comes with one file descriptor, this came with {len(descriptors)}")
    try:
        return SharedPage(descriptors[0])
    except WireError as error:
        raise _BadPageError(str(error)) from None


def _send(client: socket.socket, reply: Reply) -> bool:
    """Whether the peer could be answered."""
    try:
        client.send(reply.encode(), socket.MSG_NOSIGNAL)
    except OSError:
        return False
    return True
