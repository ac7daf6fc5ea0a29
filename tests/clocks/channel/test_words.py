"""What clocks and agent say is read as it was said; what can't be read is told."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulepath_clocks.channel import words
from joulepath_clocks.channel.words import Began, ChannelError, Play, decode, encode, pack_marks, unpack_marks
from joulepath_rules import Applied, Arm, Plan, Purpose, StagePlan
from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent

KINDS = [*words.ClocksWord.__args__, *words.AgentWord.__args__]
ENTRIES = st.builds(
    MarkerEntry,
    sequence=st.just(0),
    iteration=st.integers(0, 2**32 - 1),
    event=st.sampled_from(MarkerEvent),
    kind=st.sampled_from(["", "F", "B", "I", "W"]),
    stage=st.integers(0, 65535),
    microbatch=st.integers(0, 65535),
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
@settings(max_examples=20)
@given(data=st.data())
def test_what_is_said_is_read_alike(kind: type, data: st.DataObject) -> None:
    st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
    word = data.draw(st.from_type(kind))
    assert decode(encode(word)) == word


@given(st.binary(max_size=300) | st.builds(lambda tail: b'{"is":"Play","rank":1,"plan":' + tail, st.binary()))
def test_what_is_no_word_is_refused_as_such(message: bytes) -> None:
    try:
        word = decode(message)
    except ChannelError:
        return
    assert decode(encode(word)) == word


@given(st.lists(st.tuples(ENTRIES, st.floats(0, 1e9)), max_size=50))
def test_markers_are_unpacked_as_they_were_packed(marks: list[words.Mark]) -> None:
    assert unpack_marks(pack_marks(marks)) == marks


def test_the_largest_iteration_and_plan_that_are_measured_fit_a_message() -> None:
    entry = MarkerEntry(0, 2**32 - 1, MarkerEvent.BEGIN, "F", 1023, 127)
    marks = pack_marks([(entry, 1e9)] * 2 * 2048)
    assert len(unpack_marks(marks)) == 2 * 2048
    assert len(encode(Began(10**9, 10**9, Applied(Arm.CONTROL, 10**9, "0" * 64, None, 1000), 1e9, True, marks))) < (
        words.MOST_BYTES
    )
    stages = tuple(
        StagePlan(stage, tuple(f"F{number}" for number in range(256)), (1410,) * 256, (0.012345678901234567,) * 256)
        for stage in range(1016, 1024)
    )
    plan = Plan("0" * 64, Purpose.ENFORCE, 1980, stages=stages)
    assert len(encode(Play(10**9, plan))) < words.MOST_BYTES
    assert decode(encode(Play(7, plan))) == Play(7, dataclasses.replace(plan))
