"""One rank by itself: what it follows and measures is bounded by its budget."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import cast

import pytest

from joulepath_agent.gpus.energy import EnergyTrace
from joulepath_agent.gpus.nvml import Gpu
from joulepath_agent.gpus.setter import ClockSetter
from joulepath_agent.peers.budget import BUDGET, Budget
from joulepath_agent.peers.peer import JobPod, Peer
from joulepath_agent.ranks.lifetime import TimeToLive
from joulepath_agent.ranks.page import SharedPage
from joulepath_agent.ranks.rank import Rank
from joulepath_trainer.memory import OwnPage
from joulepath_trainer.wire.messages import Hello, InstructionSpan, IterationRecord, PipelinePlace
from joulepath_trainer.wire.page import MarkerEvent, PageWriter
from tests.agent.gpus.test_setter import MovedGpu, NotedLessor

HELLO = Hello(0, 0, 1, 0, "GPU-1", "stream", PipelinePlace("Schedule1F1B", 1, 1, (0,), (0,)))


@pytest.fixture
def make() -> Iterator[Callable[[Budget], tuple[Rank, PageWriter]]]:
    """Factory of a rank of this process, and its side of the page."""
    with ExitStack() as stack:

        def begin(budget: Budget) -> tuple[Rank, PageWriter]:
            setter = ClockSetter(cast(Gpu, MovedGpu(capped=False)), NotedLessor())
            stack.callback(setter.close, 5.0)
            pidfd = os.pidfd_open(os.getpid())
            stack.callback(os.close, pidfd)
            pod = JobPod("default", "pod", "uid", "job", "job-uid")
            trace, life = EnergyTrace(setter), TimeToLive(math.inf, 0.0)
            own, peer = OwnPage(), Peer(os.getpid(), pidfd, "uid")
            stack.callback(os.close, own.descriptor)
            page = SharedPage(own.descriptor)
            rank = Rank(HELLO, peer, page, pod, setter, trace, lambda _: None, budget, time_to_live=life)
            return rank, own.writer

        yield begin


def test_markers_that_come_faster_than_the_budget_are_not_followed(
    make: Callable[[Budget], tuple[Rank, PageWriter]],
) -> None:
    rank, page = make(replace(BUDGET, markers_burst=1000.0, markers_per_s=1e-6))
    page.pass_marker(page.announce(MarkerEvent.STEP_BEGIN, 1))
    rank.poll()
    for number in range(8000):
        sequence = page.announce(MarkerEvent.BEGIN, 1, "F", 0, number)
        if number % 200 == 199:
            page.pass_marker(sequence)
            rank.poll()
    assert 1000 <= rank.history.marks <= 1200
    assert rank.report().iteration == 1


def test_a_rank_over_its_budget_is_told_of_once_and_its_records_are_not_even_read(
    make: Callable[[Budget], tuple[Rank, PageWriter]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    rank, _ = make(replace(BUDGET, instructions=1))
    spans = tuple(InstructionSpan("F", 0, number, 0.0, 1.0) for number in range(2))
    rank.record(IterationRecord(1, 1.0, 1.0, spans).encode())
    rank.record(b"no record at all")
    for _ in range(3):
        assert rank.report().reason.startswith("OverBudget: it tells of iterations of 2 instructions")
    assert len(caplog.records) == 1


def test_a_rank_whose_measurements_cost_too_much_is_measured_later(
    make: Callable[[Budget], tuple[Rank, PageWriter]],
) -> None:
    rank, page = make(replace(BUDGET, measuring_burst_s=1e-9, measuring_share=1e-9))

    def run(first: int) -> None:
        for number in range(first, first + 20):
            page.pass_marker(page.announce(MarkerEvent.STEP_BEGIN, number))
            rank.poll()
            span = InstructionSpan("F", 0, 0, 0.0, 1e-6)
            rank.record(IterationRecord(number - 1, 1e-6, 1e-6, (span,)).encode())

    run(1)
    first = rank.report()
    assert first.control_time_s > 0
    waiting = rank.history.pending_bytes
    run(21)
    rank.report()
    assert rank.history.pending_bytes > waiting, "they wait"
