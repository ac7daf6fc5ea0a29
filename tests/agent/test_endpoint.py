"""The socket by itself: what one pod can do to the others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from joulepath_agent.endpoint import Endpoint
from joulepath_agent.peers.peer import Peer
from joulepath_agent.peers.refusal import PeerRefusedError
from joulepath_agent.ranks.rank import Rank
from joulepath_trainer.connection import AgentBusyError, AgentUnwillingError, Handshake
from joulepath_trainer.wire.messages import Hello, PipelinePlace, Reply
from tests.agent.room import wait_until

HELLO = Hello(0, 0, 1, 0, "GPU-1", "stream", PipelinePlace("Schedule1F1B", 1, 1, (0,), (0,))).encode()


class Door:
    """An endpoint whose peers are named by their own addresses, and who all are refused in the end."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.refusals: Counter[str] = Counter()
        self.slow = threading.Event()
        """The pod "loud" is answered once this is set."""
        self.made_after_s: dict[str, float] = {}
        """What the endpoint says of the age of connections, by the names of the clients."""
        self.path = str(folder / "s")
        self._folder, self._stack, self._numbers = folder, stack, count()
        self._endpoint = Endpoint(folder / "s", self._identify, self._admit, lambda _: None, self._refused)
        self._endpoint.start()
        stack.callback(self._endpoint.stop)
        stack.callback(self.slow.set)

    def client(self, pod: str) -> socket.socket:
        """A process of that pod, connected."""
        made = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        made.settimeout(60)
        made.bind(str(self._folder / f"{pod}-{next(self._numbers)}"))
        made.connect(str(self._folder / "s"))
        return made

    def ask(self, pod: str) -> bytes:
        """What a hello of that pod is answered; empty if it is hung up on."""
        with self.client(pod) as client:
            try:
                client.send(HELLO)
                return client.recv(4096)
            except (BrokenPipeError, ConnectionResetError):
                return b""

    def _identify(self, connection: socket.socket, made_after_s: float) -> Peer:
        name = Path(os.fsdecode(connection.getpeername()).strip("\0")).name
        self.made_after_s[name] = made_after_s
        pod = name.partition("-")[0] or "quiet"
        return Peer(os.getpid(), os.pidfd_open(os.getpid()), pod)

    def _admit(self, hello: Hello, peer: Peer) -> Rank:
        if peer.pod_uid == "loud":
            self.slow.wait(60)
        raise PeerRefusedError("NotItsGpu", peer.pod_uid)

    def _refused(self, code: str) -> None:
        self.refusals[code] += 1


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with ExitStack() as stack:
        yield Door(tmp_path, stack)


def answered(reply: bytes) -> bool:
    return reply != b"" and "NotItsGpu" in Reply.decode(reply).reason


def test_a_pod_whose_hellos_take_long_keeps_no_other_waiting(door: Door) -> None:
    loud = [door.client("loud") for _ in range(20)]
    for client in loud:
        client.send(HELLO)
    assert answered(door.ask("quiet"))
    door.slow.set()
    assert all(answered(client.recv(4096)) for client in loud)


def test_a_connection_was_made_after_the_time_that_is_told(door: Door) -> None:
    def connect() -> tuple[str, float]:
        return Path(door.client("quiet").getsockname()).name, time.clock_gettime(time.CLOCK_BOOTTIME)

    made_s = dict(connect() for _ in range(30))
    wait_until(lambda: made_s.keys() <= door.made_after_s.keys(), "all are met")
    assert all(door.made_after_s[name] < made_s[name] for name in made_s)

    def later() -> bool:
        name, _ = connect()
        wait_until(lambda: name in door.made_after_s, "it is met")
        return door.made_after_s[name] > max(made_s.values())

    wait_until(later, "the time goes on")


def test_a_pod_that_connects_in_a_loop_is_hung_up_on_and_no_other_is(door: Door) -> None:
    replies = [door.ask("busy") for _ in range(300)]
    assert answered(replies[0])
    assert door.refusals["TooOften"] > 0
    assert replies.count(b"") == door.refusals["TooOften"]
    assert answered(door.ask("quiet"))


FLOOD = """
import itertools, socket, sys
for number in itertools.count():
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as client:
        client.bind(f"\\0busy-{sys.argv[1]}-{number}")
        try:
            client.connect(sys.argv[1])
        except BlockingIOError:
            pass
"""


def test_while_one_pod_floods_the_socket_all_ranks_of_another_are_answered(door: Door) -> None:
    with subprocess.Popen([sys.executable, "-c", FLOOD, door.path]) as flooder:
        try:
            wait_until(lambda: door.refusals["TooOften"] > 1000, "the flood is there")
            for _ in range(40):
                assert answered_in_the_end(door.path).startswith("NotItsGpu")
            assert flooder.poll() is None
        finally:
            flooder.kill()


def answered_in_the_end(path: str) -> str:
    """What a trainer is answered that asks again where there is no room, as it does."""
    replies: list[str] = []

    def ask() -> bool:
        try:
            handshake = Handshake(path, Hello.decode(HELLO))
        except AgentBusyError:
            return False
        try:
            handshake.poll(60)
        except AgentUnwillingError as refusal:
            replies.append(str(refusal))
        return True

    wait_until(ask, "there is room")
    return replies[0]


@pytest.mark.parametrize("hello", [True, False])
def test_a_pod_has_so_many_connections_at_a_time_whether_they_say_something_or_not(door: Door, hello: bool) -> None:
    for _ in range(32):
        client = door.client("loud")
        if hello:
            client.send(HELLO)
    assert door.client("loud").recv(1) == b""
    assert door.refusals == {"TooManyConnections": 1}
    assert answered(door.ask("quiet"))


def test_a_waiting_hello_whose_peer_is_gone_leaves_no_descriptor_behind(door: Door) -> None:
    before = descriptors()
    loud = [door.client("loud") for _ in range(10)]
    for client in loud:
        client.send(HELLO)
    assert answered(door.ask("quiet"))
    for client in loud:
        client.close()
    door.slow.set()
    wait_until(lambda: descriptors() <= before, "all descriptors are closed")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
