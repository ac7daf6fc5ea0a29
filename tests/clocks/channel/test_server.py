"""The clocks' end of the channel: whatever the agent does, nobody waits for it."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from joulepath_clocks.channel.server import Server
from joulepath_clocks.channel.words import (
    LOCK_NAME,
    SOCKET_NAME,
    AgentWord,
    ClocksWord,
    Gone,
    Heard,
    NodeNews,
    Recorded,
    decode,
    encode,
)
from tests.agent.room import wait_until

RECORD = b"x" * 50_000


def news(number: int) -> NodeNews:
    """That the node is well."""
    return NodeNews(number, True, "", {}, {}, 0)


class Clocks:
    """A server whose news is set by the test."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.news: dict[object, ClocksWord] = {"node": news(1)}
        self.heard: list[AgentWord] = []
        self.path, self._stack = folder / SOCKET_NAME, stack
        self.server = Server(folder, lambda: dict(self.news), self.heard.append, lambda _: None)
        self.server.start()
        stack.callback(self.server.stop)

    def agent(self) -> socket.socket:
        """An agent that is connected."""
        agent = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        agent.settimeout(60)
        agent.connect(str(self.path))
        return agent


@pytest.fixture
def clocks(tmp_path: Path) -> Iterator[Clocks]:
    with ExitStack() as stack:
        yield Clocks(tmp_path, stack)


def read(agent: socket.socket) -> object:
    """The next word; None once the agent is hung up on."""
    message = agent.recv(1 << 20)
    return decode(message) if message else None


def until(agent: socket.socket, said: Callable[[object], bool]) -> object:
    """The first such word."""
    while not said(word := read(agent)):
        assert word is not None
    return word


def test_what_is_is_told_once_and_again_when_it_changes_and_what_is_no_more_is_taken_back(clocks: Clocks) -> None:
    agent = clocks.agent()
    assert read(agent) == news(1)
    clocks.news = {"node": news(2), 7: Recorded(7, b"")}
    assert [read(agent), read(agent)] == [news(2), Recorded(7, b"")]
    clocks.news = {"node": news(2)}
    assert read(agent) == Gone(7)
    clocks.news = {"node": news(3)}
    assert read(agent) == news(3)


def test_an_agent_that_is_new_is_told_all_and_the_one_before_is_hung_up_on(clocks: Clocks) -> None:
    first = clocks.agent()
    assert read(first) == news(1)
    second = clocks.agent()
    assert read(second) == news(1)
    assert read(first) is None


def test_an_agent_that_does_not_read_loses_what_happens_and_hears_later_what_is(clocks: Clocks) -> None:
    agent = clocks.agent()
    assert read(agent) == news(1)
    said = [clocks.server.say(Recorded(7, RECORD)) for _ in range(200)]
    assert said[0]
    assert not said[-1], "its queue is full, and nobody waits"
    assert clocks.server.lost == said.count(False)
    clocks.news = {"node": news(2)}
    assert until(agent, lambda word: word == news(2))


def test_without_an_agent_nothing_waits_and_nothing_counts_as_lost(clocks: Clocks) -> None:
    assert not clocks.server.say(Recorded(7, RECORD))
    assert clocks.server.lost == 0


@pytest.mark.parametrize("message", [b"no word", b'{"is":"Heard"}', encode(Heard(1.0)).replace(b"Heard", b"Hears")])
def test_an_agent_that_says_what_cannot_be_read_is_hung_up_on_and_may_come_again(
    clocks: Clocks, message: bytes
) -> None:
    agent = clocks.agent()
    agent.send(message)
    assert until(agent, lambda word: word is None or not isinstance(word, NodeNews)) is None
    again = clocks.agent()
    again.send(encode(Heard(2.0)))
    wait_until(lambda: clocks.heard == [Heard(2.0)], "it is heard")


def test_only_root_may_open_the_channel(clocks: Clocks) -> None:
    assert stat.S_IMODE(os.stat(clocks.path).st_mode) == 0o600


def test_only_root_may_hold_an_agents_lock(clocks: Clocks) -> None:
    lock = clocks.path.with_name(LOCK_NAME)
    assert stat.S_IMODE(lock.stat().st_mode) & 0o077 == 0
