"""One rank by itself: what is followed of it is bounded by its budget."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import cast

import pytest

from joulepath_clocks.channel.words import Began, Came, ClocksWord, Recorded, unpack_marks
from joulepath_clocks.gpus.nvml import Gpu
from joulepath_clocks.gpus.setter import ClockSetter
from joulepath_clocks.peers.budget import BUDGET, Budget
from joulepath_clocks.peers.peer import JobPod, Peer
from joulepath_clocks.ranks.lifetime import TimeToLive
from joulepath_clocks.ranks.page import SharedPage
from joulepath_clocks.ranks.rank import Rank
from joulepath_rules import Blocks, Plan, Purpose, RankState, StagePlan, Sweep
from joulepath_trainer.memory import OwnPage
from joulepath_trainer.wire.messages import Hello, PipelinePlace
from joulepath_trainer.wire.page import MarkerEvent, PageWriter
from tests.clocks.gpus.test_setter import MovedGpu, NotedLessor

HELLO = Hello(0, 0, 1, 0, "GPU-1", "stream", PipelinePlace("Schedule1F1B", 1, 1, (0,), (0,)))
STAGES = (StagePlan(0, ("F0",), (900,), (1.0,)),)
Made = tuple[Rank, PageWriter, list[ClocksWord]]


@pytest.fixture
def make() -> Iterator[Callable[[Budget], Made]]:
    """Factory of a rank of this process, its side of the page, and what is said of it."""
    with ExitStack() as stack:

        def begin(budget: Budget) -> Made:
            gpu = MovedGpu(capped=False)
            gpu.refused = None  # type: ignore[attr-defined]
            setter = ClockSetter(cast(Gpu, gpu), NotedLessor())
            stack.callback(setter.close, 5.0)
            pidfd = os.pidfd_open(os.getpid())
            stack.callback(os.close, pidfd)
            came = Came(7, "GPU-1", JobPod("default", "pod", "uid", "job", "job-uid"), HELLO.encode())
            own, peer = OwnPage(), Peer(os.getpid(), pidfd, "uid")
            stack.callback(os.close, own.descriptor)
            said: list[ClocksWord] = []
            life = TimeToLive(math.inf)
            page = SharedPage(own.descriptor)
            rank = Rank(came, HELLO, peer, page, setter, lambda _: None, said.append, time_to_live=life, budget=budget)
            return rank, own.writer, said

        yield begin


def test_markers_that_come_faster_than_the_budget_are_not_followed(make: Callable[[Budget], Made]) -> None:
    rank, page, _ = make(replace(BUDGET, markers_burst=1000.0, markers_per_s=1e-6))
    page.pass_marker(page.announce(MarkerEvent.STEP_BEGIN, 1))
    rank.follow(time.monotonic())
    for number in range(8000):
        sequence = page.announce(MarkerEvent.BEGIN, 1, "F", 0, number)
        if number % 200 == 199:
            page.pass_marker(sequence)
            rank.follow(time.monotonic())
    assert rank.news.iteration == 1
    assert 1000 <= len(rank.marks) <= 1200


def test_an_iteration_is_told_with_the_markers_of_the_one_before(make: Callable[[Budget], Made]) -> None:
    rank, page, said = make(BUDGET)
    for iteration in (1, 2):
        for event, kind in ((MarkerEvent.STEP_BEGIN, ""), (MarkerEvent.BEGIN, "F"), (MarkerEvent.END, "F")):
            page.pass_marker(page.announce(event, iteration, kind))
            rank.follow(time.monotonic())
    first, second = (word for word in said if isinstance(word, Began))
    assert (first.iteration, first.marks) == (1, b"")
    marks = [(one.event, one.iteration, one.kind) for one, _ in unpack_marks(second.marks)]
    assert marks == [(MarkerEvent.BEGIN, 1, "F"), (MarkerEvent.END, 1, "F")]
    assert first.at_s < unpack_marks(second.marks)[0][1] < second.at_s


def test_a_record_is_handed_on_unread(make: Callable[[Budget], Made]) -> None:
    rank, _, said = make(BUDGET)
    rank.record(b"\0no record\0at all")
    assert said == [Recorded(7, b"\0no record\0at all")]


def test_iterations_that_come_faster_than_the_budget_are_neither_followed_nor_told(
    make: Callable[[Budget], Made],
) -> None:
    rank, page, said = make(replace(BUDGET, iterations_burst=10.0, iterations_per_s=1e-6))
    for iteration in range(100):
        page.pass_marker(page.announce(MarkerEvent.STEP_BEGIN, iteration))
        for _ in range(2):
            rank.follow(time.monotonic())
    assert len([word for word in said if isinstance(word, Began)]) in (10, 11), "one may spend more than there is"
    assert rank.news.reason.startswith("MarkersLost")


def test_a_plan_that_breaks_the_rules_refuses_itself_and_ends_the_lease(make: Callable[[Budget], Made]) -> None:
    rank, page, _ = make(BUDGET)
    held = Plan("held", Purpose.SWEEP, 1410, activate_at=0, sweep=Sweep((900,) * 400, 100))
    rank.set_plan(held)
    for iteration in (1, 2, 200):
        page.pass_marker(page.announce(MarkerEvent.STEP_BEGIN, iteration))
        for _ in range(2):
            rank.follow(time.monotonic())
    assert rank.lease.held
    rank.set_plan(replace(held, hash="broken", purpose=Purpose.ENFORCE, sweep=None, stages=STAGES, blocks=Blocks(0, 0)))
    assert not rank.lease.held
    assert rank.news.state is RankState.REFUSED


def test_whatever_fails_after_a_marker_ends_the_lease_and_not_the_gpus_thread(
    make: Callable[[Budget], Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    rank, page, _ = make(BUDGET)

    def fail(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(rank.progress, "passed", fail)
    for event in (MarkerEvent.STEP_BEGIN, MarkerEvent.BEGIN):
        page.pass_marker(page.announce(event, 1, kind="F" if event is MarkerEvent.BEGIN else "", stage=0, microbatch=0))
        assert rank.follow(time.monotonic()) < time.monotonic() + 1.0
    assert rank.news.state is RankState.REFUSED
    assert rank.news.reason.startswith("FollowerFailed")
