"""One rank by itself: what is measured of it is bounded by its budget."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from joulepath_agent.gpus.energy import EnergyTrace
from joulepath_agent.rank import Rank
from joulepath_clocks.channel.words import Began, Came
from joulepath_clocks.peers.budget import BUDGET, Budget
from joulepath_clocks.peers.peer import JobPod
from joulepath_crds import Arm
from joulepath_rules import Applied, Length
from joulepath_trainer.wire.messages import Hello, InstructionSpan, IterationRecord, PipelinePlace

HELLO = Hello(0, 0, 1, 0, "GPU-1", "stream", PipelinePlace("Schedule1F1B", 1, 1, (0,), (0,)))


def make(budget: Budget) -> Rank:
    """A rank that the clocks tell of."""
    came = Came(7, "GPU-1", JobPod("default", "pod", "uid", "job", "job-uid"), HELLO.encode())
    return Rank(came, EnergyTrace(lambda: 0.0), budget)


def test_a_rank_over_its_budget_is_told_of_once_and_its_records_are_not_even_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    rank = make(replace(BUDGET, instructions=1))
    spans = tuple(InstructionSpan("F", 0, number, 0.0, 1.0) for number in range(2))
    rank.record(IterationRecord(1, 1.0, 1.0, spans).encode())
    rank.record(b"no record at all")
    for _ in range(3):
        assert rank.report().reason.startswith("OverBudget: it tells of iterations of 2 instructions")
    assert len(caplog.records) == 1


def test_a_rank_whose_measurements_cost_too_much_is_measured_later() -> None:
    rank = make(replace(BUDGET, measuring_burst_s=1e-9, measuring_share=1e-9))

    def run(first: int) -> None:
        for number in range(first, first + 20):
            rank.begin(Began(7, number, Applied(Arm.DEFAULT), float(number), False, Length.WHOLE, b""))
            span = InstructionSpan("F", 0, 0, 0.0, 0.5)
            rank.record(IterationRecord(number - 1, 1.0, 1.0, (span,)).encode())

    run(1)
    first = rank.report()
    assert first.control_time_s > 0
    waiting = rank.history.pending_bytes
    run(21)
    rank.report()
    assert rank.history.pending_bytes > waiting, "they wait"


def test_a_rank_that_is_slow_says_by_how_much_and_what_the_driver_said_last() -> None:
    rank = make(BUDGET)

    def run(first: int, count: int, busy_s: float) -> None:
        for number in range(first, first + count):
            rank.begin(Began(7, number, Applied(Arm.DEFAULT), float(number), False, Length.WHOLE, b""))
            rank.record(IterationRecord(number, 1.0, 1.0, (InstructionSpan("F", 0, 0, 0.0, busy_s),)).encode())

    run(1, 12, 0.5)
    assert (rank.report(lambda: "heat").slowdown, rank.report(lambda: "heat").slowed_by) == (1.0, "")
    run(13, 3, 0.6)
    assert (rank.report(lambda: "heat").slowdown, rank.report(lambda: "").slowed_by) == (1.2, "heat")
    run(16, 4, 0.5)
    assert (rank.report(lambda: "heat").slowdown, rank.report(lambda: "heat").slowed_by) == (1.0, "")
