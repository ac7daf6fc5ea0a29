"""What clocks and agent say is read as it was said; what can't be read is told."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulepath_clocks.channel import words
from joulepath_clocks.channel.words import Began, ChannelError, Play, decode, encode, pack_marks, unpack_marks
from joulepath_rules import Applied, Arm, Blocks, Length, Plan, Purpose, StagePlan, Sweep
from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent

KINDS = [*words.ClocksWord.__args__, *words.AgentWord.__args__]
TIMES_S = st.floats(0, 1e9)
CLOCKS_MHZ = st.integers(0, 3000)
INSTRUCTIONS = st.lists(st.tuples(st.just("F0"), CLOCKS_MHZ, TIMES_S), min_size=1, max_size=3)
PLANS = st.builds(
    Plan,
    hash=st.text(),
    purpose=st.sampled_from(Purpose),
    default_clock_mhz=st.integers(1, 3000),
    attempt=st.integers(0),
    activate_at=st.none() | st.integers(0),
    sparse_from=st.none() | st.integers(0),
    sweep=st.none()
    | st.builds(Sweep, st.lists(CLOCKS_MHZ, min_size=1).map(tuple), st.integers(2, 101))
    | st.builds(Sweep, st.just((900, 0)), st.integers(2, 101), st.tuples(CLOCKS_MHZ, CLOCKS_MHZ)),
    blocks=st.none() | st.builds(Blocks, st.integers(3, 1000), st.integers(0, 1000), st.none() | st.integers(2, 1000)),
    stages=st.lists(
        st.builds(lambda at, of: StagePlan(at, *zip(*of, strict=True)), st.integers(0, 9), INSTRUCTIONS), max_size=2
    ).map(tuple),
    control_iteration_time_s=TIMES_S,
    plan_iteration_time_s=TIMES_S,
    allowed_slowdown=st.none() | st.floats(0, 0.5),
)
st.register_type_strategy(Plan, PLANS)
st.register_type_strategy(float, TIMES_S)
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
    word = data.draw(st.from_type(kind))
    assert decode(encode(word)) == word


@given(st.binary(max_size=300) | st.builds(lambda tail: b'{"is":"Play","rank":1,"plan":' + tail, st.binary()))
def test_what_is_no_word_is_refused_as_such(message: bytes) -> None:
    try:
        word = decode(message)
    except ChannelError:
        return
    assert decode(encode(word)) == word


SOUND = Plan("one", Purpose.ENFORCE, 1410, stages=(StagePlan(0, ("F0",), (900,), (1.0,)),))


@pytest.mark.parametrize(
    "changes",
    [
        {"blocks": Blocks(0, 1)},
        {"blocks": Blocks(6, -1)},
        {"sweep": Sweep((900,), 0)},
        {"sweep": Sweep((-900,), 8)},
        {"sweep": Sweep((900,), 8, (-885,))},
        {"sweep": Sweep((900, 900), 8, (885,))},
        {"stages": (StagePlan(0, ("F0", "B0"), (900,), (1.0,)),)},
        {"stages": (StagePlan(0, ("F0",), (900,), (float("inf"),)),)},
        {"default_clock_mhz": 0},
        {"activate_at": -1},
        {"plan_iteration_time_s": float("nan")},
    ],
)
def test_a_plan_that_no_job_plan_can_be_is_no_word(changes: dict[str, object]) -> None:
    assert decode(encode(Play(7, SOUND))) == Play(7, SOUND)
    with pytest.raises(ChannelError):
        decode(encode(Play(7, dataclasses.replace(SOUND, **changes))))  # type: ignore[arg-type]


@given(st.lists(st.tuples(ENTRIES, st.floats(0, 1e9)), max_size=50))
def test_markers_are_unpacked_as_they_were_packed(marks: list[words.Mark]) -> None:
    assert unpack_marks(pack_marks(marks)) == marks


def test_the_largest_iteration_and_plan_that_are_measured_fit_a_message() -> None:
    entry = MarkerEntry(0, 2**32 - 1, MarkerEvent.BEGIN, "F", 1023, 127)
    marks = pack_marks([(entry, 1e9)] * 2 * 2048)
    assert len(unpack_marks(marks)) == 2 * 2048
    assert len(
        encode(Began(10**9, 10**9, Applied(Arm.CONTROL, 10**9, "0" * 64, None, 1000), 1e9, True, Length.UNKNOWN, marks))
    ) < (words.MOST_BYTES)
    stages = tuple(
        StagePlan(stage, tuple(f"F{number}" for number in range(256)), (1410,) * 256, (0.012345678901234567,) * 256)
        for stage in range(1016, 1024)
    )
    plan = Plan("0" * 64, Purpose.ENFORCE, 1980, stages=stages)
    assert len(encode(Play(10**9, plan))) < words.MOST_BYTES
    assert decode(encode(Play(7, plan))) == Play(7, dataclasses.replace(plan))
