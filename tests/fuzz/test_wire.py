"""Whatever bytes a peer sends, of a trainer, agent or warden: its message or one short error, in bounded memory."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from hypothesis import strategies as st

from joulepath_trainer.wire.messages import Hello, IterationRecord, OldPython, PipelinePlace, Reply
from joulepath_trainer.wire.parts import Gathering
from joulepath_trainer.wire.protocol import MAX_MESSAGE_BYTES, WireError
from joulepath_warden.wire import Answer, Request, Verb
from tests.fuzz.drawing import changed, fuzz
from tests.trainer.test_wire import hellos, records

SHARE: Final = 0.12
TEXT: Final = 500
"""Characters of an error: it is logged, and told to the peer."""
REASON: Final = 1000
"""Characters of a reply: it goes to the log of somebody's training."""
BYTES_PER_BYTE: Final = 48
FIXED_BYTES: Final = 64 * 1024
"""What decoding takes at most: so much for each byte of the message, and so much beside."""


@dataclass(frozen=True)
class Side:
    """One kind of message, as whoever gets it reads it."""

    decode: Callable[[bytes], Any]
    valid: st.SearchStrategy[Any]
    error: type[ValueError]


versions = st.builds(lambda major, minor: f"{major}.{minor}", st.integers(0, 99), st.integers(0, 99))


@dataclass(frozen=True)
class Part:
    """Some of a record's instructions."""

    message: bytes

    def encode(self) -> bytes:
        """The message."""
        return self.message


NOTHING: Final = Part(b"")
parts = st.builds(
    lambda record, first, total: Part(struct.pack("<4sHH", b"JPS1", first, total) + record.encode()),
    records,
    st.integers(0, 65535),
    st.integers(0, 65535),
)
uuids = st.lists(st.text(max_size=40), max_size=5).map(tuple)
SIDES: Final = {
    "hello to the agent": Side(Hello.decode, hellos(), WireError),
    "old Python to the agent": Side(OldPython.decode, st.builds(OldPython, versions, versions), WireError),
    "part of a record to the agent": Side(lambda message: Gathering().take(message) or NOTHING, parts, WireError),
    "record to the agent": Side(IterationRecord.decode, records, WireError),
    "reply to the trainer": Side(
        Reply.decode, st.builds(Reply, st.booleans(), st.text(max_size=300), st.booleans()), WireError
    ),
    "request to the warden": Side(Request.decode, st.builds(Request, st.sampled_from(Verb), uuids), ValueError),
    "answer to the agent": Side(Answer.decode, st.builds(Answer, st.text(max_size=300), uuids, uuids), ValueError),
}


ONE: Final = Hello(0, 0, 1, 0, None, "host", PipelinePlace("", 1, 1, (0,), (0,)))


def check(side: Side, message: bytes) -> None:
    """Raises nothing but the one error, short; what is read is read alike when it is sent again; memory is bounded."""
    what = f"{len(message)} bytes, {message[:200]!r}"
    before_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    said = ""
    try:
        read = side.decode(message)
    except side.error as error:
        read, said = None, str(error)
    except Exception as error:
        error.add_note(what)
        raise
    most_bytes = tracemalloc.get_traced_memory()[1] - before_bytes
    assert (read is None) == bool(said), what
    assert len(said) <= TEXT, what
    assert most_bytes <= BYTES_PER_BYTE * len(message) + FIXED_BYTES, f"{most_bytes} bytes taken for {what}"
    assert len(getattr(read, "reason", "")) <= REASON, what
    # Escaped, a text may take more room than it did.
    if read not in (None, NOTHING) and len(again := read.encode()) <= MAX_MESSAGE_BYTES:
        assert side.decode(again) == read, what


@pytest.fixture
def counted() -> Iterator[None]:
    """Memory is."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("name", SIDES)
def test_whatever_comes_is_a_message_or_one_short_error_in_bounded_memory(name: str) -> None:
    side = SIDES[name]

    def check_changed(valid: bytes, chance: random.Random) -> None:
        for message in changed(valid, chance):
            check(side, message)

    fuzz(check_changed, side.valid.map(lambda one: bytes(one.encode())), SHARE)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("request to the warden", b'{"verb": "beat", "gpus": ' + b"[" * 1000 + b"]" * 1000 + b"}"),
        (
            "answer to the agent",
            b'{"refused": "", "revoked": [], "in_doubt": ' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001,
        ),
        ("request to the warden", b'{"verb": "' + b"ve" * 8000 + b'", "gpus": []}'),
        ("request to the warden", b'{"verb": ["beat"], "gpus": []}'),
        ("request to the warden", b'{"verb": "beat", "gpus": ["\xed\xa0\x80\\udc00"]}'),
        ("answer to the agent", b'{"refused": {"": ' + b"9" * 4000 + b'}, "revoked": [], "in_doubt": []}'),
        ("reply to the trainer", b'{"reply": {"reason": {"": [' + b"0," * 20_000 + b"0]}}}"),
        ("reply to the trainer", b'{"reply": {"reason": "' + b"x" * 60_000 + b'"}}'),
        ("hello to the agent", Hello.encode(ONE).replace(b'"stages":[0]', b'"stages":[' + b"9," * 20_000 + b"9]")),
    ],
)
@pytest.mark.usefixtures("counted")
def test_what_was_found(name: str, message: bytes) -> None:
    check(SIDES[name], message)
