"""The observer by itself: no torch, a real socket."""

from __future__ import annotations

import gc
import logging
import mmap
import os
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent_double import AgentDouble, accepted
from joulepath_trainer import observer as observer_module
from joulepath_trainer.connection import AgentBusyError, AgentGoneError, AgentUnwillingError
from joulepath_trainer.identity import Work
from joulepath_trainer.iterations import MarkedIteration, PendingIterations
from joulepath_trainer.marking.marks import Marker, Marks
from joulepath_trainer.observer import RETRY_S, Observer
from joulepath_trainer.wire.messages import IterationRecord, PipelinePlace, Reply
from joulepath_trainer.wire.page import Ending, MarkerEvent, PageWriter
from joulepath_trainer.wire.protocol import MAX_MESSAGE_BYTES

PIPELINE = PipelinePlace("Schedule1F1B", 1, 1, (0,), (0,))
ON_CPU = Work(PIPELINE, "cpu")


def step(observer: Observer, microbatch: int = 0) -> None:
    observer.begin_step(ON_CPU)
    token = observer.begin_instruction("F", 0, microbatch)
    if token is not None:
        observer.end_instruction(token)
    observer.end_step()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


def test_a_device_whose_queue_cannot_be_marked_is_not_observed(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    observer = Observer(str(path))
    for _ in range(3):
        observer.begin_step(Work(PIPELINE, "xpu"))
        observer.end_step()
    assert observer.off
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "'xpu'" in caplog.text


def test_a_signals_handler_that_ends_a_step_does_not_wait_for_what_it_interrupts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with AgentDouble(path):
        observer, interrupted = Observer(str(path)), list[int]()
        step(observer)
        page = observer._page
        assert page is not None
        announce = page.writer.announce

        def interrupt(*args: Any) -> int:
            if not interrupted:
                interrupted.append(1)
                observer.end_step(whole=False)
            return announce(*args)

        monkeypatch.setattr(page.writer, "announce", interrupt)
        training = threading.Thread(target=step, args=(observer,), daemon=True)
        training.start()
        training.join(60.0)
        assert interrupted
        assert not training.is_alive()
        assert not observer.off


def test_an_error_of_ours_switches_off_once_and_closes_the_connection(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with AgentDouble(path) as agent:
        observer = Observer(str(path))
        step(observer)
        step(observer, microbatch=70000)
        step(observer)
        agent.ranks(1)
    assert observer.off
    assert len(caplog.records) == 1


def test_an_agent_that_stops_reading_costs_records_and_nothing_else(path: Path) -> None:
    observer = Observer(str(path), patience_s=0)
    with accepted(path, lambda: observer.begin_step(ON_CPU)) as connection:
        for _ in range(2000):
            step(observer)
        assert not observer.off
        first = IterationRecord.decode(connection.recv(MAX_MESSAGE_BYTES))
        second = IterationRecord.decode(connection.recv(MAX_MESSAGE_BYTES))
        assert (first.iteration, second.iteration) == (1, 2)


class Clock:
    """Seconds that pass when the test says so."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_an_absent_agent_is_looked_for_again_after_seconds_however_many_steps_they_hold(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    observer = Observer(str(path), clock_s=clock)
    step(observer)
    clock.now_s += RETRY_S + 1
    for _ in range(200):
        step(observer)
    clock.now_s += RETRY_S - 0.1
    with AgentDouble(path, hang_up_after=2) as agent:
        for _ in range(200):
            step(observer)
        clock.now_s += 0.1
        while agent.gone < 1:
            step(observer)
        last = observer.iteration
        for _ in range(20):
            step(observer)
        clock.now_s += RETRY_S
        while agent.gone < 2:
            step(observer)
        first, second = agent.ranks(2)
    assert 401 <= first.records[0].iteration <= last
    assert second.records[0].iteration >= last + 20
    assert not observer.off
    assert caplog.text.count("no agent at") == 1, "said once, however often it is looked for"


def test_an_agent_that_never_answers_is_asked_again_after_a_longer_while(path: Path) -> None:
    clock = Clock()
    observer = Observer(str(path), patience_s=0, clock_s=clock)
    with AgentDouble(path, lambda *_: None) as agent:
        for _ in range(60):
            step(observer)
            clock.now_s += 1
        assert len(agent.ranks(1)) == 1
        for _ in range(20):
            step(observer)
            clock.now_s += 1
        assert len(agent.ranks(2)) == 2


def test_an_agent_that_does_not_want_a_rank_now_is_asked_again_after_pauses_that_double(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    observer = Observer(str(path), patience_s=0, clock_s=clock)
    pauses_s = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen(1)
        step(observer)
        listener.accept()[0].close()
        listener.setblocking(False)
        for _ in range(9):
            observer.lose_agent(AgentBusyError("no room"))
        for _ in range(9):
            observer.lose_agent(AgentUnwillingError("no such pod"))
            refused_at_s = clock.now_s
            while True:
                clock.now_s += 1
                step(observer)
                try:
                    listener.accept()[0].close()
                except BlockingIOError:
                    continue
                break
            pauses_s.append(clock.now_s - refused_at_s)
    assert pauses_s == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert not observer.off
    assert [record.levelno for record in caplog.records if "no such pod" in record.getMessage()] == [logging.WARNING]


def test_a_full_queue_of_connections_is_tried_again_soon(path: Path) -> None:
    clock = Clock()
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(str(path))
        listener.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)).connect(str(path))
        observer = Observer(str(path), patience_s=0, clock_s=clock)
        step(observer)
        stack.enter_context(listener.accept()[0])
        listener.settimeout(60)
        clock.now_s += 0.2
        step(observer)
        with listener.accept()[0] as connection:
            assert connection.recv(MAX_MESSAGE_BYTES)


def test_an_evaluation_is_marked_once_where_it_begins_but_not_within_an_instruction(path: Path) -> None:
    """In the midst of an iteration, as of a loop of one's own, or behind it."""
    with AgentDouble(path) as agent:
        observer = Observer(str(path))
        observer.part()
        step(observer)
        for marked in (False, True):
            observer.begin_step(ON_CPU)
            token = observer.begin_instruction("F", 0, 0)
            assert token is not None
            observer.evaluate()  # a teacher
            observer.end_instruction(token)
            if marked:
                observer.evaluate()
                observer.evaluate()
            observer.end_step()
        begun_s = time.monotonic()
        step(observer)
        observer.evaluate()
        until_evaluated_s = time.monotonic() - begun_s
        observer.evaluate()
        step(observer)
        observer._finish()
        (rank,) = agent.ranks(1)
    ends = [(one.iteration, one.ending) for one in rank.entries() if one.event is MarkerEvent.STEP_END]
    whole, parted = Ending.WHOLE, Ending.PARTED
    assert ends == [(0, whole), (1, whole), (2, parted), (2, whole), (3, whole), (3, parted), (4, whole)]
    told = [(record.iteration, record.period_s > 0) for record in rank.records]
    assert told == [(0, True), (1, True), (3, True), (4, False)], "of the third, until it evaluates"
    assert rank.records[2].period_s <= until_evaluated_s


class PooledMarks:
    """Time stamps are made where none is free, as the CUDA driver's events are."""

    def __init__(self, page: PageWriter) -> None:
        self._page = page
        self._free: list[int] = []
        self.made = 0

    def place(self) -> int | None:
        return 0

    def stamp(self, place: int, sequence: int) -> int:
        self._page.pass_marker(sequence)
        if self._free:
            return self._free.pop()
        self.made += 1
        return self.made

    def passed(self, stamp: int) -> bool:
        return True

    def seconds(self, begin: int, end: int) -> float:
        return 0.0

    def recycle(self, stamps: Iterable[int]) -> None:
        self._free += stamps
        assert len(set(self._free)) == len(self._free), "none is given back twice"


def test_two_hundred_reconnects_leave_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[PooledMarks] = []

    def open_marks(_: mmap.mmap, writer: PageWriter) -> Marks:
        opened.append(PooledMarks(writer))
        return opened[-1]

    marker = Marker("host", None, "here", lambda: True, open_marks)
    monkeypatch.setattr(observer_module, "choose_marker", lambda _: marker)
    clock = Clock()
    observer = Observer(str(path), patience_s=0, clock_s=clock)
    left = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        for reconnects in range(203):
            step(observer)
            with listener.accept()[0] as connection:
                connection.recv(MAX_MESSAGE_BYTES)
                connection.send(Reply(accepted=True).encode())
                for _ in range(4):
                    step(observer)
                assert IterationRecord.decode(connection.recv(MAX_MESSAGE_BYTES)).spans
                observer.begin_step(ON_CPU)
                observer.begin_instruction("F", 0, 0)
            observer.lose_agent(AgentGoneError("in the middle of an instruction"))
            observer.end_step()
            clock.now_s += RETRY_S
            if reconnects in (2, 202):
                gc.collect()  # what tests before this one left would be closed in between
                maps = Path("/proc/self/maps").read_text().count("joulepath-page")
                left.append((len(os.listdir("/proc/self/fd")), maps, opened[0].made))
    assert left[0] == left[1]
    assert len(opened) == 1
    assert not observer.off


class SlowGpu:
    """Passes stamps only up to a moment that the test sets; a stamp is its own time in ms."""

    def __init__(self) -> None:
        self.now = 0
        self.recycled: list[int] = []

    def place(self) -> int | None:
        return 0

    def stamp(self, place: int, sequence: int) -> int:
        return sequence

    def passed(self, stamp: int) -> bool:
        return stamp <= self.now

    def seconds(self, begin: int, end: int) -> float:
        return (end - begin) / 1e3

    def recycle(self, stamps: Iterable[int]) -> None:
        self.recycled += stamps


def iteration(number: int) -> MarkedIteration:
    at = 100 * number
    spans = [("F", 0, 0, (0, 0), at + 10, at + 40), ("B", 0, 0, (0, 0), at + 40, at + 80)]
    stamps = [at, at + 10, at + 40, at + 40, at + 80, at + 90]
    return MarkedIteration(number, at, spans, at + 90, {0}, stamps=stamps)


def test_records_wait_for_the_gpu_and_for_the_next_begin() -> None:
    gpu = SlowGpu()
    pending = PendingIterations(gpu)
    pending.add(iteration(1))
    gpu.now = 500
    assert list(pending.completed()) == []
    pending.add(iteration(2))
    gpu.now = 199
    assert list(pending.completed()) == []
    gpu.now = 200
    (record,) = pending.completed()
    assert (record.iteration, record.end_s, record.period_s) == (1, 0.09, 0.1)
    assert [(span.kind, span.begin_s, span.end_s) for span in record.spans] == [("F", 0.01, 0.04), ("B", 0.04, 0.08)]
    assert sorted(gpu.recycled) == [100, 110, 140, 140, 180, 190]
    gpu.now = 290
    assert [(record.iteration, record.period_s) for record in pending.completed(last=True)] == [(2, 0.0)]


def test_a_period_lasts_until_something_else_begins() -> None:
    gpu = SlowGpu()
    pending = PendingIterations(gpu)
    pending.add(iteration(1))
    pending.part([195])
    pending.add(iteration(4))
    gpu.now = 194
    assert list(pending.completed()) == []
    gpu.now = 400
    assert [(record.iteration, record.period_s) for record in pending.completed()] == [(1, 0.095)]
    assert 195 in gpu.recycled
    pending.part([])
    assert [(record.iteration, record.period_s) for record in pending.completed(last=True)] == []
    gpu.now = 500
    assert [(record.iteration, record.period_s) for record in pending.completed(last=True)] == [(4, 0.0)]
    pending.drop()
    assert pending._stamps == 0


def test_a_period_over_a_step_that_was_not_observed_is_not_known() -> None:
    gpu = SlowGpu()
    pending = PendingIterations(gpu)
    pending.add(iteration(1))
    pending.add(iteration(3))
    gpu.now = 1000
    assert [(record.iteration, record.period_s) for record in pending.completed()] == [(1, 0.0)]


def test_a_gpu_that_is_far_behind_loses_the_oldest_records_and_no_stamp() -> None:
    gpu = SlowGpu()
    pending = PendingIterations(gpu)
    for number in range(100):
        pending.add(iteration(number))
    assert list(pending.completed()) == []
    gpu.now = 10000
    kept = [record.iteration for record in pending.completed(last=True)]
    assert kept == list(range(100 - len(kept), 100))
    assert 10 < len(kept) < 100
    assert len(gpu.recycled) == 100 * 6
    assert pending.lost == 100 - len(kept)
