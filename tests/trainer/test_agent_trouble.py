"""Agents that are absent, die, refuse, say nothing or lie: training goes on."""

from __future__ import annotations

import gc
import json
import mmap
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent_double import AgentDouble, refuse
from joulepath_trainer.connection import AgentGoneError, AgentRefusedError, Handshake
from joulepath_trainer.wire.messages import Hello, PipelinePlace, Reply
from joulepath_trainer.wire.page import PAGE_BYTES
from joulepath_trainer.wire.protocol import MAX_MESSAGE_BYTES, WireError

if TYPE_CHECKING:
    from tests.trainer.conftest import Nursery


def lie(connection: socket.socket, _: int) -> None:
    connection.send(b"\0\n\xff")


HELLO = Hello(0, 0, 1, 0, None, "host", PipelinePlace("Schedule1F1B", 1, 1, (0,), (0,)))
ACCEPT = Reply(accepted=True).encode()


def test_a_rank_whose_agent_dies_trains_on(nursery: Nursery) -> None:
    with AgentDouble(nursery.socket, hang_up_after=3) as agent:
        losses = nursery.run("train", 2, steps=10)
        ranks = agent.ranks(2)
    assert len(losses[1]) == 10
    assert [len(rank.records) for rank in ranks] == [3, 3]


def test_a_refusal_is_said_once_and_never_asked_again(nursery: Nursery) -> None:
    with AgentDouble(nursery.socket, refuse) as agent:
        said = nursery.said(lambda: nursery.run("train", 1, steps=10))
        (rank,) = agent.ranks(1)
    assert rank.records == []
    assert [line for line in said.splitlines() if "no such GPU" in line] == said.splitlines()
    assert len(said.splitlines()) == 1


def test_an_agent_that_lies_switches_the_observer_off_with_one_line(nursery: Nursery) -> None:
    with AgentDouble(nursery.socket, lie) as agent:
        said = nursery.said(lambda: nursery.run("train", 1, steps=5))
        agent.ranks(1)
    assert len(said.splitlines()) == 1
    assert "WireError" in said


def test_without_an_agent_nothing_is_said(nursery: Nursery) -> None:
    assert nursery.said(lambda: nursery.run("train", 1, steps=3)) == ""


def test_forked_workers_of_a_data_loader_do_not_hold_the_socket(nursery: Nursery) -> None:
    with AgentDouble(nursery.socket) as agent:
        counts = nursery.run("hold_sockets", 2)
        agent.ranks(2)
    assert counts == [{"rank": [1], "workers": [0, 0, 0, 0]}] * 2


def _page(content: bytes = b"", size: int = PAGE_BYTES) -> int:
    descriptor = os.memfd_create("page")
    os.write(descriptor, content)
    os.ftruncate(descriptor, size)
    return descriptor


HOSTILE: dict[str, tuple[Callable[[], tuple[bytes, list[int]]], type[Exception]]] = {
    "no page": (lambda: (ACCEPT, []), WireError),
    "two pages": (lambda: (ACCEPT, [_page(), _page()]), WireError),
    "more descriptors than are read": (lambda: (ACCEPT, [_page() for _ in range(40)]), WireError),
    "an unformatted page": (lambda: (ACCEPT, [_page()]), WireError),
    "a page too short": (lambda: (ACCEPT, [_page(size=mmap.PAGESIZE)]), WireError),
    "a pipe for a page": (lambda: (ACCEPT, [os.pipe()[0]]), WireError),
    "a refusal with a page": (lambda: (Reply(False, "no", True).encode(), [_page()]), AgentRefusedError),
    "no JSON": (lambda: (b"\xff" * 100, [_page()]), WireError),
    "too long": (lambda: (b" " * (MAX_MESSAGE_BYTES + 10), []), WireError),
    "nested": (lambda: (b"[" * 60000, []), WireError),
    "a list": (lambda: (json.dumps([1]).encode(), []), WireError),
    "nothing": (lambda: (b"", []), AgentGoneError),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_answer_raises_and_leaks_no_descriptor(tmp_path: Path, case: str) -> None:
    make, error = HOSTILE[case]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        gc.collect()  # what tests before this one left open would be closed in between
        before = len(os.listdir("/proc/self/fd"))
        handshake = Handshake(str(tmp_path / "s"), HELLO)
        assert handshake.poll() is None
        with listener.accept()[0] as connection:
            assert Hello.decode(connection.recv(MAX_MESSAGE_BYTES)) == HELLO
            message, descriptors = make()
            opened = len(descriptors) * (2 if case == "a pipe for a page" else 1)
            socket.send_fds(connection, [message], descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            with pytest.raises(error):
                handshake.poll()
        left_by_this_test = opened - len(descriptors)
        assert len(os.listdir("/proc/self/fd")) == before + left_by_this_test


def test_an_absent_agent_and_one_with_a_full_queue_are_both_gone_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with pytest.raises(AgentGoneError, match="no agent at"):
        Handshake(path, HELLO)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(0)
        first = Handshake(path, HELLO)
        with pytest.raises(AgentGoneError, match="no agent at"):
            Handshake(path, HELLO)
        first.close()
