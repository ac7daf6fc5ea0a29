"""Properties of the wire format."""

from __future__ import annotations

import json
import string
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

import joulepath_rules
from joulepath_crds import INSTRUCTION_KINDS
from joulepath_trainer import hook
from joulepath_trainer.wire.messages import Hello, InstructionSpan, IterationRecord, PipelinePlace, Reply
from joulepath_trainer.wire.page import (
    ENTRY,
    LAST,
    MARKER_OFFSET,
    PAGE_BYTES,
    RING,
    RING_OFFSET,
    MarkerEvent,
    PageReader,
    PageWriter,
    ahead,
    check_page,
    following,
    format_page,
)
from joulepath_trainer.wire.protocol import KINDS, PAIR, SOCKET_ENV, OtherVersionError, WireError

numbers = st.integers(0, 2**31)
short = st.integers(0, 65535)
times = st.floats(0, 1e5, allow_nan=False)
spans = st.builds(
    lambda kind, stage, microbatch, begin, length, back: InstructionSpan(
        kind, stage, microbatch, begin, begin + length, back if kind == PAIR else (0, 0)
    ),
    st.sampled_from(KINDS + PAIR),
    short,
    short,
    times,
    times,
    st.tuples(short, short),
)
records = st.builds(IterationRecord, st.integers(0, 2**32 - 1), times, times, st.lists(spans, max_size=20).map(tuple))


@st.composite
def hellos(draw: st.DrawFn) -> Hello:
    count = draw(st.integers(1, 65535))
    rank = draw(st.integers(0, 2**20))
    return Hello(
        rank=rank,
        local_rank=draw(numbers),
        world_size=draw(st.integers(rank + 1, 2**31)),
        attempt=draw(numbers),
        gpu_uuid=draw(st.none() | st.text(max_size=256)),
        markers=draw(st.sampled_from(["stream", "host"])),
        pipeline=PipelinePlace(
            draw(st.text(max_size=256)),
            count,
            draw(st.integers(1, 65535)),
            tuple(draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=8))),
            tuple(draw(st.lists(numbers, max_size=8))),
        ),
        data=draw(numbers),
        tensor=draw(numbers),
        data_parallel=draw(st.integers(1, 2**31)),
        tensor_parallel=draw(st.integers(1, 2**31)),
    )


@given(hellos())
def test_a_hello_survives_the_wire(hello: Hello) -> None:
    assert Hello.decode(hello.encode()) == hello


def test_a_text_that_no_report_could_hold_is_refused() -> None:
    place = PipelinePlace("1F1B", 1, 1, (0,), (0,))
    hello = Hello(0, 0, 1, 0, None, "host", place, framework="torch \udcff")
    with pytest.raises(WireError, match=r"hello\.framework must be a text that UTF-8 has"):
        Hello.decode(hello.encode())


@pytest.mark.parametrize("version", [1, 3])
def test_a_hello_of_another_version_is_told_from_a_bad_one(version: int) -> None:
    with pytest.raises(OtherVersionError, match=f"hello.version must be 2, it is {version}"):
        Hello.decode(json.dumps({"hello": {"version": version, "of": "another shape"}}).encode())


@given(records)
def test_a_record_survives_the_wire(record: IterationRecord) -> None:
    assert IterationRecord.decode(record.encode()) == record


@given(st.booleans(), st.text(max_size=300), st.booleans())
def test_a_reply_survives_the_wire(accepted: bool, reason: str, final: bool) -> None:
    assert Reply.decode(Reply(accepted, reason, final).encode()) == Reply(accepted, reason, final)


json_texts = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["hello", "reply", "pipeline"]), inner),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())


@given(st.binary(max_size=200) | json_texts)
def test_whatever_comes_only_a_wire_error_is_raised(message: bytes) -> None:
    for decode in (Hello.decode, Reply.decode, IterationRecord.decode):
        with suppress(WireError):
            decode(message)


@given(hellos(), st.data())
def test_a_hello_with_one_field_replaced_only_raises_a_wire_error(hello: Hello, data: st.DataObject) -> None:
    body = json.loads(hello.encode())
    inside = data.draw(st.sampled_from([body["hello"], body["hello"]["pipeline"]]))
    inside[data.draw(st.sampled_from(sorted(inside)))] = data.draw(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers() | st.text())
    )
    with suppress(WireError):
        Hello.decode(json.dumps(body).encode())


@given(records, st.data())
def test_a_damaged_record_only_raises_a_wire_error(record: IterationRecord, data: st.DataObject) -> None:
    message = bytearray(record.encode())
    message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    with suppress(WireError):
        IterationRecord.decode(bytes(message))


@given(
    st.lists(
        st.tuples(st.sampled_from(MarkerEvent), numbers, st.sampled_from(["", *KINDS, PAIR]), short, short), max_size=30
    )
)
def test_a_marker_means_what_was_announced(markers: list[tuple[MarkerEvent, int, str, int, int]]) -> None:
    page = memoryview(bytearray(PAGE_BYTES))
    format_page(page)
    check_page(page)
    writer, reader = PageWriter(page), PageReader(page)
    for event, *meaning in markers:
        sequence = writer.announce(event, *meaning)  # type: ignore[arg-type]
        assert reader.enqueued == sequence
        entry = reader.entry(sequence)
        assert entry is not None
        assert (entry.event, entry.iteration, entry.kind, entry.stage, entry.microbatch) == (event, *meaning)
    assert reader.marker == 0


def test_an_overwritten_marker_means_nothing() -> None:
    page = memoryview(bytearray(PAGE_BYTES))
    writer, reader = PageWriter(page), PageReader(page)
    for _ in range(RING + 1):
        writer.announce(MarkerEvent.STEP_BEGIN, 0)
    assert reader.entry(1) is None
    assert reader.entry(2) is not None


@given(st.binary(min_size=ENTRY.size, max_size=ENTRY.size), st.binary(min_size=16, max_size=16), st.booleans())
def test_a_page_of_anything_raises_nothing(content: bytes, head: bytes, consistent: bool) -> None:
    (sequence,) = struct.unpack_from("<I", content if consistent else head)
    page = memoryview(bytearray(PAGE_BYTES))
    page[:16] = head
    at = RING_OFFSET + sequence % RING * ENTRY.size
    page[at : at + ENTRY.size] = content
    reader = PageReader(page)
    entry = reader.entry(sequence)
    assert entry is None or entry.sequence == sequence
    assert [reader.marker, reader.enqueued] == list(struct.unpack_from("<II", head, MARKER_OFFSET))


@given(st.integers(0, LAST), st.integers(1, 1000))
def test_sequence_numbers_begin_anew_after_the_last_one(sequence: int, steps: int) -> None:
    later = sequence
    for _ in range(steps):
        later = following(later)
        assert 1 <= later <= LAST
    assert ahead(later, sequence) == steps
    assert ahead(sequence, later) == ahead(sequence, sequence) == 0


@pytest.mark.parametrize("size", [0, PAGE_BYTES - 1, PAGE_BYTES])
def test_a_page_that_nobody_formatted_is_refused(size: int) -> None:
    with pytest.raises(WireError, match="shared page must"):
        check_page(memoryview(bytearray(size)))


def test_a_span_is_of_the_kinds_that_the_contract_has() -> None:
    assert KINDS == INSTRUCTION_KINDS
    assert PAIR == joulepath_rules.PAIR


def test_a_pair_without_its_backward_is_no_record() -> None:
    pair = InstructionSpan(PAIR, 3, 4, 0.5, 0.75, (7, 1))
    whole = IterationRecord(1, 1.0, 1.0, (pair, InstructionSpan("B", 7, 2, 0.75, 1.0))).encode()
    size = (len(whole) - len(IterationRecord(1, 1.0, 1.0).encode())) // 3
    alone = bytearray(whole[: -2 * size])
    at = len(alone) - size - 2
    alone[at : at + 2] = (1).to_bytes(2, "little")
    other = bytearray(whole)
    other[-2 * size] = ord("B")
    for message in (alone, other):
        with pytest.raises(WireError, match="pair with the forward of microbatch 4 has no backward"):
            IterationRecord.decode(bytes(message))


def test_a_kind_that_is_not_known_here_is_no_marker_and_refused_by_name_in_a_record() -> None:
    """As a newer trainer's would be."""
    page = memoryview(bytearray(PAGE_BYTES))
    assert PageReader(page).entry(PageWriter(page).announce(MarkerEvent.BEGIN, 0, "Q")) is None
    with pytest.raises(WireError, match="instruction 'Q' of microbatch 4"):
        IterationRecord.decode(IterationRecord(1, 1.0, 1.0, (InstructionSpan("Q", 3, 4, 0.0, 1.0),)).encode())


def test_the_bootstrap_knows_the_name_of_the_socket_variable() -> None:
    bootstrap = hook.__file__.replace("hook.py", "bootstrap/joulepath_bootstrap.py")
    with open(bootstrap) as source:
        assert f'"{SOCKET_ENV}"' in source.read()
