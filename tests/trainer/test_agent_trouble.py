"""Agents that are absent, die, refuse, say nothing or lie: training goes on."""

from __future__ import annotations

import gc
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent_double import AgentDouble, refuse
from joulepath_trainer.connection import AgentGoneError, AgentRefusedError, Handshake
from joulepath_trainer.memory import OwnPage
from joulepath_trainer.wire.messages import PROCESS, Hello, PipelinePlace, Reply
from joulepath_trainer.wire.protocol import MAX_MESSAGE_BYTES, WireError

if TYPE_CHECKING:
    from tests.trainer.conftest import Nursery


def lie(connection: socket.socket) -> None:
    connection.send(b"\0\n\xff")


HELLO = Hello(0, 0, 1, 0, None, "host", PipelinePlace("Schedule1F1B", 1, 1, (0,), (0,)))
ACCEPT = Reply(accepted=True).encode()


@pytest.fixture
def page() -> Iterator[OwnPage]:
    made = OwnPage()
    yield made
    os.close(made.descriptor)


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


HOSTILE: dict[str, tuple[bytes, int, type[Exception] | None]] = {
    "a welcome with descriptors": (ACCEPT, 40, None),
    "a refusal with a descriptor": (Reply(False, "no", True).encode(), 1, AgentRefusedError),
    "no JSON": (b"\xff" * 100, 1, WireError),
    "too long": (b" " * (MAX_MESSAGE_BYTES + 10), 0, WireError),
    "nested": (b"[" * 60000, 0, WireError),
    "a list": (json.dumps([1]).encode(), 0, WireError),
    "nothing": (b"", 0, AgentGoneError),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_answer_leaks_no_descriptor(tmp_path: Path, page: OwnPage, case: str) -> None:
    message, descriptors, error = HOSTILE[case]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        gc.collect()  # what tests before this one left open would be closed in between
        before = len(os.listdir("/proc/self/fd"))
        handshake = Handshake(str(tmp_path / "s"), HELLO, page.descriptor)
        assert handshake.poll() is None
        with listener.accept()[0] as connection:
            assert Hello.decode(connection.recv(MAX_MESSAGE_BYTES)) == HELLO
            socket.send_fds(connection, [message], [page.descriptor] * descriptors)
            if error is None:
                assert handshake.poll() is not None
                handshake.close()
            else:
                with pytest.raises(error):
                    handshake.poll()
        assert len(os.listdir("/proc/self/fd")) == before


def welcomed(path: Path, page: OwnPage, reply: bytes) -> tuple[bytes, list[int]]:
    """What a trainer says to that welcome, with its descriptors; it hangs up afterwards."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        handshake = Handshake(str(path), HELLO, page.descriptor)
        with listener.accept()[0] as connection:
            connection.recv(MAX_MESSAGE_BYTES)
            connection.send(reply)
            accepted = handshake.poll(60)
            assert accepted is not None
            accepted.close()
            message, descriptors, _, _ = socket.recv_fds(connection, MAX_MESSAGE_BYTES, 8)
            return message, descriptors


def test_an_agent_that_wants_the_process_is_sent_a_pidfd_of_it(tmp_path: Path, page: OwnPage) -> None:
    message, (pidfd,) = welcomed(tmp_path / "s", page, Reply(accepted=True, wants_process=True).encode())
    told = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    os.close(pidfd)
    assert message == PROCESS
    assert f"Pid:\t{os.getpid()}\n" in told


@pytest.mark.parametrize("answer", [Reply(accepted=True).encode(), b'{"reply": {"accepted": true}}'])
def test_an_agent_that_does_not_want_it_is_sent_none(tmp_path: Path, page: OwnPage, answer: bytes) -> None:
    """Neither is one of before, which wouldn't know what it is."""
    assert welcomed(tmp_path / "s", page, answer) == (b"", [])


def test_a_process_that_has_no_pidfd_sends_none_and_is_welcome(
    tmp_path: Path, page: OwnPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    assert welcomed(tmp_path / "s", page, Reply(accepted=True, wants_process=True).encode()) == (b"", [])


def test_an_agent_of_another_release_is_told_in_one_sentence(tmp_path: Path, page: OwnPage) -> None:
    """It hangs up on a hello that it can't read."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        handshake = Handshake(str(tmp_path / "s"), HELLO, page.descriptor)
        with listener.accept()[0] as connection:
            connection.recv(MAX_MESSAGE_BYTES)
        with pytest.raises(AgentGoneError, match="hung up on the hello; one of another release always does"):
            handshake.poll(60)


def test_an_absent_agent_and_one_with_a_full_queue_are_both_gone_at_once(tmp_path: Path, page: OwnPage) -> None:
    path = str(tmp_path / "s")
    with pytest.raises(AgentGoneError, match="no agent at"):
        Handshake(path, HELLO, page.descriptor)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(0)
        first = Handshake(path, HELLO, page.descriptor)
        with pytest.raises(AgentGoneError, match="no agent at"):
            Handshake(path, HELLO, page.descriptor)
        first.close()
