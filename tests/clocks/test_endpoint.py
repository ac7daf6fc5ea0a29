"""The socket by itself: what one pod can do to the others."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from joulepath_clocks.endpoint import Endpoint
from joulepath_clocks.peers.peer import Peer
from joulepath_clocks.peers.refusal import PeerRefusedError
from joulepath_clocks.ranks.page import SharedPage
from joulepath_clocks.ranks.rank import Rank
from joulepath_trainer.connection import AgentBusyError, AgentUnwillingError, Handshake
from joulepath_trainer.memory import OwnPage
from joulepath_trainer.wire.messages import Hello, OldPython, PipelinePlace, Reply
from joulepath_trainer.wire.page import PAGE_BYTES, SEALS, format_page
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
        self.page = OwnPage().descriptor
        stack.callback(os.close, self.page)
        self._folder, self._stack, self._numbers = folder, stack, count()
        self.pythons: list[tuple[str, OldPython]] = []
        self._endpoint = Endpoint(
            folder / "s",
            self._identify,
            self._admit,
            lambda _: None,
            self._refused,
            on_old_python=lambda uid, python: self.pythons.append((uid, python)),
        )
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

    def ask(self, pod: str, pages: Sequence[int] | None = None, hello: bytes = HELLO) -> bytes:
        """What a hello of that pod is answered; empty if it is hung up on."""
        with self.client(pod) as client:
            try:
                self.send(client, pages, hello)
                return client.recv(4096)
            except (BrokenPipeError, ConnectionResetError):
                return b""

    def send(self, client: socket.socket, pages: Sequence[int] | None = None, hello: bytes = HELLO) -> None:
        """Says hello, with a sound page unless told otherwise."""
        socket.send_fds(client, [hello], [self.page] if pages is None else pages)

    def _identify(self, connection: socket.socket, made_after_s: float, pod_uid: str | None) -> Peer:
        name = Path(os.fsdecode(connection.getpeername()).strip("\0")).name
        self.made_after_s[name] = made_after_s
        pod = name.partition("-")[0] or "quiet"
        return Peer(os.getpid(), os.pidfd_open(os.getpid()), pod)

    def _admit(self, hello: Hello, peer: Peer, page: SharedPage) -> Rank:
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
        door.send(client)
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


@pytest.mark.slow
def test_while_one_pod_floods_the_socket_all_ranks_of_another_are_answered(door: Door) -> None:
    with subprocess.Popen([sys.executable, "-c", FLOOD, door.path]) as flooder:
        try:
            wait_until(lambda: door.refusals["TooOften"] > 1000, "the flood is there")
            for _ in range(40):
                assert answered_in_the_end(door).startswith("NotItsGpu")
            assert flooder.poll() is None
        finally:
            flooder.kill()


def answered_in_the_end(door: Door) -> str:
    """What a trainer is answered that asks again where there is no room, as it does."""
    replies: list[str] = []

    def ask() -> bool:
        try:
            handshake = Handshake(door.path, Hello.decode(HELLO), door.page)
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
            door.send(client)
    assert door.client("loud").recv(1) == b""
    assert door.refusals == {"TooManyConnections": 1}
    assert answered(door.ask("quiet"))


def test_a_waiting_hello_whose_peer_is_gone_leaves_no_descriptor_behind(door: Door) -> None:
    before = descriptors()
    loud = [door.client("loud") for _ in range(10)]
    for client in loud:
        door.send(client)
    assert answered(door.ask("quiet"))
    for client in loud:
        client.close()
    door.slow.set()
    wait_until(lambda: descriptors() <= before, "all descriptors are closed")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def memory(size: int = PAGE_BYTES, seals: int = SEALS, formatted: bool = True) -> int:
    """A memfd of that size, with these seals."""
    descriptor, content = os.memfd_create("page", os.MFD_ALLOW_SEALING), bytearray(PAGE_BYTES)
    if formatted:
        format_page(memoryview(content))
    os.write(descriptor, content)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def written_only() -> int:
    """A page that its receiver may not read."""
    page = memory()
    descriptor = os.open(f"/proc/self/fd/{page}", os.O_WRONLY)
    os.close(page)
    return descriptor


def socket_pair() -> list[int]:
    return [one.detach() for one in socket.socketpair()]


HOSTILE: dict[str, Callable[[], Sequence[int]]] = {
    "no page": lambda: (),
    "seven pages": lambda: [memory() for _ in range(7)],
    "more descriptors than are read": lambda: [memory() for _ in range(40)],
    "a page without seals": lambda: [memory(seals=0)],
    "a page that may shrink": lambda: [memory(seals=fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)],
    "a page that may grow": lambda: [memory(seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)],
    "a page whose seals may change": lambda: [memory(seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)],
    "a page too small": lambda: [memory(PAGE_BYTES - 4096)],
    "a page too large": lambda: [memory(PAGE_BYTES + 4096)],
    "a page that nobody formatted": lambda: [memory(formatted=False)],
    "a page that can't be read": lambda: [written_only()],
    "pipes": os.pipe,
    "a pipe": lambda: os.pipe()[:1],
    "a socket": lambda: socket_pair()[:1],
    "a file": lambda: [os.open(__file__, os.O_RDONLY)],
    "a file in memory": lambda: [os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR)],
    "a folder": lambda: [os.open("/", os.O_RDONLY)],
    "a process": lambda: [os.pidfd_open(os.getpid())],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_page_that_is_none_is_refused_and_closed(door: Door, what: str) -> None:
    door.ask("quiet")
    before = descriptors()
    made = HOSTILE[what]()
    left = descriptors() - before - len(made)  # other ends, which nobody is sent
    reply = Reply.decode(door.ask("loud", made))
    for descriptor in made:
        os.close(descriptor)
    assert reply.reason.startswith("BadPage: ")
    assert (reply.accepted, reply.final) == (False, what != "no page"), "an agent may be short of descriptors itself"
    assert door.refusals["BadPage"] == 1
    wait_until(lambda: descriptors() - left <= before, "all that was sent is closed")
    assert answered(door.ask("quiet"))


def test_descriptors_that_come_with_anything_else_are_closed(door: Door) -> None:
    door.ask("quiet")
    before = descriptors()
    assert door.ask("quiet", [door.page] * 7, b"no hello") == b""
    loud = door.client("loud")
    door.send(loud)
    door.send(loud, [door.page] * 7, b"before the answer")
    assert loud.recv(4096) == b""
    loud.close()
    door.slow.set()
    wait_until(lambda: descriptors() <= before, "all that was sent is closed")


def test_a_python_too_old_for_the_trainer_is_noted_and_hung_up_on(door: Door) -> None:
    door.ask("quiet")
    before = descriptors()
    assert door.ask("old", [door.page] * 7, b"JPV1 3.8 3.10") == b""
    for nonsense in (b"JPV1", b"JPV1 3.8", b"JPV1 3.8 3.10 ", b"JPV1 3.8 3.1000", b"JPV1 a b", b"JPV1" + b"1" * 60_000):
        assert door.ask("loud", (), nonsense) == b""
    assert door.pythons == [("old", OldPython("3.8", "3.10"))]
    assert door.refusals["BadMessage"] == 6
    wait_until(lambda: descriptors() <= before, "all that was sent is closed")
    assert answered(door.ask("quiet"))


def test_a_trainer_of_another_release_is_told_so_in_one_sentence_and_may_ask_again(door: Door) -> None:
    body = json.loads(HELLO)
    body["hello"]["version"] = 1
    reply = Reply.decode(door.ask("quiet", (), json.dumps(body).encode()))
    assert reply.reason == (
        "OtherVersion: hello.version must be 2, it is 1: agent and trainer are of different releases, a pod that is "
        "started anew gets this one's"
    )
    assert (reply.accepted, reply.final) == (False, False), "the agent may be rolled back"
