"""Frames and calls: whatever pieces a message comes in it is read whole, and what is none ends the connection."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_injector.nri import frames
from joulepath_injector.nri.frames import PLUGIN, NriError
from joulepath_injector.nri.ttrpc import REQUEST, RESPONSE, Message, Messages, pack

MESSAGES = st.builds(
    Message,
    call=st.integers(0, 2**32 - 1),
    kind=st.sampled_from([REQUEST, RESPONSE, 3]),
    body=st.binary(max_size=200),
)


@given(messages=st.lists(MESSAGES, max_size=4), cuts=st.lists(st.integers(0, 900), max_size=6))
def test_messages_are_read_as_they_were_sent_whatever_their_pieces(messages: list[Message], cuts: list[int]) -> None:
    whole = b"".join(map(pack, messages))
    places = sorted({0, *(min(cut, len(whole)) for cut in cuts), len(whole)})
    read = Messages()
    pieces = (whole[begin:end] for begin, end in itertools.pairwise(places))
    assert [message for piece in pieces for message in read.take(piece)] == messages


@given(st.lists(st.binary(max_size=100), max_size=10))
def test_bytes_that_are_no_messages_raise_the_one_error_or_nothing(pieces: list[bytes]) -> None:
    read = Messages()
    with contextlib.suppress(NriError):
        for piece in pieces:
            list(read.take(piece))


def test_a_message_longer_than_any_may_be_is_refused_before_its_bytes_come() -> None:
    with pytest.raises(NriError, match="4194305 bytes"):
        list(Messages().take(struct.pack(">IIBB", 4 * 1024 * 1024 + 1, 1, REQUEST, 0)))


def test_a_long_message_crosses_in_frames_that_the_runtime_has_room_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        data = bytes(range(256)) * 40
        frames.send(ours, PLUGIN, data)
        received = [frames.receive(theirs) for _ in range(3)]
    assert {connection for connection, _ in received} == {PLUGIN}
    assert b"".join(piece for _, piece in received) == data
    assert max(len(piece) for _, piece in received) == 4096


@pytest.mark.parametrize("head", [b"", b"\0\0", struct.pack(">II", 1, 10), struct.pack(">II", 1, 2**31)])
def test_a_connection_that_ends_or_says_nonsense_is_over(head: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(head)
        theirs.close()
        with pytest.raises(NriError):
            frames.receive(ours)
