"""Records of more instructions than a message holds arrive whole, and what can't arrive is told."""

from __future__ import annotations

import logging
from itertools import cycle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_double import AgentDouble, accepted
from joulepath_trainer.identity import Work
from joulepath_trainer.observer import Observer
from joulepath_trainer.wire.messages import InstructionSpan, IterationRecord, PipelinePlace
from joulepath_trainer.wire.parts import MOST_INSTRUCTIONS, Gathering, parts_of, total_of
from joulepath_trainer.wire.protocol import MAX_MESSAGE_BYTES, PAIR, WireError

WORK = Work(PipelinePlace("Schedule1F1B", 1, 40_000, (0,), (0,)), "cpu")


def record(count: int, iteration: int = 7, kinds: str = "F") -> IterationRecord:
    spans = (
        InstructionSpan(kind, 0, number, number, number + 0.5, (1, number // 2) if kind == PAIR else (0, 0))
        for number, kind in zip(range(count), cycle(kinds), strict=False)
    )
    return IterationRecord(iteration, 1.0, 1.5, tuple(spans))


def step(observer: Observer, instructions: int) -> None:
    observer.begin_step(WORK)
    for number in range(instructions):
        token = observer.begin_instruction("FB"[number % 2], 0, number // 2)
        if token is not None:
            observer.end_instruction(token)
    observer.end_step()


@pytest.mark.parametrize("kinds", ["F", PAIR, f"F{PAIR}"])
@pytest.mark.parametrize("count", [0, 1, 1350, 1351, 2729, 2730, 8000, MOST_INSTRUCTIONS])
def test_a_record_of_any_size_is_put_together_again(count: int, kinds: str) -> None:
    gathering, whole = Gathering(), record(count, kinds=kinds)
    messages = list(parts_of(whole))
    assert all(len(message) <= MAX_MESSAGE_BYTES for message in messages)
    assert [gathering.take(message) for message in messages] == [None] * (len(messages) - 1) + [whole]


def test_a_record_that_one_message_holds_goes_as_it_always_did() -> None:
    (message,) = parts_of(record(2700))
    assert total_of(message) is None
    assert IterationRecord.decode(message) == record(2700)


@settings(max_examples=20)
@given(st.lists(st.booleans(), min_size=9, max_size=9))
def test_a_lost_part_costs_its_record_and_no_other(arrives: list[bool]) -> None:
    """Three records of three parts."""
    gathering, got, whole = Gathering(), [], []
    for number in range(3):
        of_this = arrives[3 * number : 3 * number + 3]
        if all(of_this):
            whole.append(number)
        for message, comes in zip(parts_of(record(6000, number)), of_this, strict=True):
            if comes and (found := gathering.take(message)) is not None:
                got.append(found.iteration)
    assert got == whole


def test_parts_of_more_than_they_say_are_no_record() -> None:
    message = bytearray(next(parts_of(record(6000))))
    message[6:8] = (100).to_bytes(2, "little")
    with pytest.raises(WireError, match="2700 instructions from 0 on are no part of 100"):
        Gathering().take(bytes(message))


def test_a_training_of_thousands_of_microbatches_is_told(tmp_path: Path) -> None:
    with AgentDouble(tmp_path / "agent.sock", hang_up_after=3) as agent:
        observer = Observer(str(tmp_path / "agent.sock"))
        while not agent.gone:
            step(observer, 4000)
        (rank,) = agent.ranks(1)
    assert [len(one.spans) for one in rank.records] == [4000] * 3


def test_what_did_not_fit_the_queue_goes_once_there_is_room(tmp_path: Path) -> None:
    observer = Observer(str(tmp_path / "agent.sock"), patience_s=0)
    with accepted(tmp_path / "agent.sock", lambda: observer.begin_step(WORK)) as connection:
        for _ in range(4):
            step(observer, 6000)
        gathering, got = Gathering(), []
        connection.setblocking(False)
        for _ in range(40):
            step(observer, 1)
            try:
                while True:
                    if (found := gathering.take(connection.recv(MAX_MESSAGE_BYTES))) is not None:
                        got.append((found.iteration, len(found.spans)))
            except BlockingIOError:
                pass
        assert got[:3] == [(1, 6000), (2, 6000), (3, 6000)]


@pytest.mark.parametrize(
    ("instructions", "steps", "why"),
    [(MOST_INSTRUCTIONS + 1, 4, "65536 instructions"), (6000, 12, "doesn't read as fast")],
)
def test_iterations_that_cannot_be_told_are_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, instructions: int, steps: int, why: str
) -> None:
    observer = Observer(str(tmp_path / "agent.sock"), patience_s=0)
    with accepted(tmp_path / "agent.sock", lambda: observer.begin_step(WORK)):
        for _ in range(steps):
            step(observer, instructions)
    said = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert len(said) == 1
    assert why in said[0]
    assert not observer.off
