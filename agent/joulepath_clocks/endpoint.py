"""The socket: who comes in, what they may claim, and when they are gone.

One thread and one selector for the listener, the connections and the pidfds of the training processes. What may take
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
from joulepath_clocks.gpus.lease import End
from joulepath_clocks.peers.budget import BUDGET, Budget
from joulepath_clocks.peers.limits import Allowance, PodLimits
from joulepath_clocks.peers.peer import Identify, Peer
from joulepath_clocks.peers.refusal import PeerRefusedError
from joulepath_clocks.ranks.page import SharedPage
from joulepath_clocks.ranks.rank import Rank
from joulepath_trainer.wire.messages import Hello, Reply
from joulepath_trainer.wire.protocol import MAX_MESSAGE_BYTES, OtherVersionError, WireError

__all__ = ["Admit", "Endpoint"]

log = logging.getLogger(__name__)

Admit = Callable[[Hello, Peer, SharedPage], Rank]
"""Makes a rank of a hello and its page, or refuses the peer by a PeerRefusedError."""

_HELLO_LIMIT_S: Final = 10.0
_BACKLOG: Final = 512
_TICK_S: Final = 0.25
_CONNECTIONS_AT_ONCE: Final = 64
_MESSAGES_AT_ONCE: Final = 16
_LOGS_PER_MINUTE: Final = 20


@dataclass(eq=False, slots=True)
class _Connection:
    """A peer that is connected."""

    socket: socket.socket
    peer: Peer
    since_s: float
    allowance: Allowance
    """Bytes that may be read from it."""
    hello: Hello | None = None
    page: SharedPage | None = None
    asking: bool = False
    """Whether its hello is being checked; meanwhile its pidfd stays open."""
    rank: Rank | None = None
    ended: bool = False
    paused: bool = False
    """Whether nothing is read from it for now."""


class Endpoint:
    """The server of the socket."""

    def __init__(
        self,
        path: Path,
        identify: Identify,
        admit: Admit,
        on_tick: Callable[[float], None],
        on_refusal: Callable[[str], None] = lambda _: None,
        budget: Budget = BUDGET,
    ) -> None:
        """Listens at once; `on_tick` runs four times a second in this thread.

        Raises:
            OSError: The socket can't be made.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._path = path
        self._empty_at_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        """When no connection waited to be accepted, last: those that do are younger."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._inode = path.stat().st_ino
        path.chmod(0o666)  # training pods run as any user; who they are, the kernel tells
        self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)
        self._identify, self._admit = identify, admit
        self._on_tick, self._on_refusal = on_tick, on_refusal
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
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
        self._listener.close()
        for connection in self._connections:
            connection.socket.close()
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._inode:  # else the next agent is there already
                self._path.unlink()

    @property
    def listening(self) -> bool:
        """Whether peers are being served."""
        return self._thread.is_alive() and not self._stop.is_set()

    def _run(self) -> None:
        ticked_s = 0.0
        while not self._stop.is_set():
            looked_at_s = time.clock_gettime(time.CLOCK_BOOTTIME)
            ready = self._selector.select(_TICK_S)
            if all(key.fileobj is not self._listener for key, _ in ready):
                self._empty_at_s = looked_at_s
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
        self._limits.forget(now)
        for connection in tuple(self._connections):
            if connection.rank is not None and not connection.rank.alive:
                self._end(connection)
            elif connection.rank is None and not connection.asking and now - connection.since_s > _HELLO_LIMIT_S:
                self._end(connection, why=f"it said nothing for {_HELLO_LIMIT_S:.0f} s")
            elif connection.paused and connection.allowance.ready(now):
                connection.paused = False
                self._listen_to(connection)

    # connections

    def _accept(self) -> None:
        """Takes all that wait: while one pod fills the queue of connections, the others find it full."""
        for _ in range(_CONNECTIONS_AT_ONCE):
            looked_at_s = time.clock_gettime(time.CLOCK_BOOTTIME)
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                self._empty_at_s = looked_at_s
                return
            self._meet(client)

    def _meet(self, client: socket.socket) -> None:
        client.setblocking(False)
        try:
            peer = self._identify(client, self._empty_at_s)
        except PeerRefusedError as refusal:
            self._tell_refusal(client, refusal)
            client.close()
            return
        now = time.monotonic()
        try:
            self._limits.connect(peer.pod_uid, now)
        except PeerRefusedError as refusal:
            self._count_refusal(refusal)
            os.close(peer.pidfd)
            client.close()
            return
        budget = self._budget
        allowance = Allowance(budget.record_burst_bytes, budget.record_bytes_per_s, now)
        connection = _Connection(client, peer, now, allowance)
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
                wanted = connection.hello is None and not self._disposal.full
                message, descriptors = receive(connection.socket, MAX_MESSAGE_BYTES + 1, descriptors=wanted)
            except BlockingIOError:
                return
            except OSError as error:
                self._end(connection, why=str(error))
                return
            if connection.hello is None and message:
                self._greet(connection, message, descriptors)
                return
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

    def _turn_down(self, connection: _Connection, refusal: PeerRefusedError) -> None:
        self._tell_refusal(connection.socket, refusal)
        self._end(connection)

    def _fill_pool(self) -> None:
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            if connection.ended:
                os.close(connection.peer.pidfd)
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
                os.close(connection.peer.pidfd)
        self._fill_pool()

    def _welcome(self, connection: _Connection, rank: Rank) -> None:
        connection.rank = rank
        if connection.ended:
            rank.close(End.CONNECTION_CLOSED)
        elif _send(connection.socket, Reply(accepted=True)):
            self._selector.register(
                rank.peer.pidfd, selectors.EVENT_READ, lambda: self._end(connection, End.PROCESS_GONE)
            )
        else:
            self._end(connection)

    def _end(self, connection: _Connection, end: End = End.CONNECTION_CLOSED, why: str = "") -> None:
        """Ends a connection and its rank. Only this thread closes descriptors that the selector knows."""
        if connection.ended:
            return
        connection.ended = True
        if why:
            self._log(f"connection of process {connection.peer.pid} closed: {why}")
        self._connections.discard(connection)
        self._limits.disconnect(connection.peer.pod_uid)
        for watched in (connection.socket, connection.peer.pidfd):
            with contextlib.suppress(KeyError):
                self._selector.unregister(watched)
        if connection.rank is not None:
            connection.rank.close(end)
        connection.socket.close()
        if not connection.asking:
            os.close(connection.peer.pidfd)

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
