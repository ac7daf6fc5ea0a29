"""What a history keeps of a peer's records is bounded, and their times are cut to what the agent has seen."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_agent.gpus.energy import Trace
from joulepath_agent.measuring.history import History
from joulepath_agent.measuring.spans import KnownSteps
from joulepath_clocks.peers.budget import BUDGET, Budget
from joulepath_crds import Arm
from joulepath_rules import Applied
from joulepath_trainer.wire.messages import InstructionSpan, IterationRecord
from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent

DAYS_S = 9e5
NOTHING = Trace(np.array([0.0, 1.0]), np.zeros(2), np.ones(2))
"""An energy counter that stopped long ago."""
SMALL = replace(BUDGET, pending_bytes=100_000, window_cells=2000, names=40)


def spans(
    count: int, first: int = 0, stages: int = 1, times_s: tuple[float, float] = (0.0, 1e-3)
) -> tuple[InstructionSpan, ...]:
    """So many instructions, each kind in turn on each stage."""
    each = range(first, first + count)
    return tuple(InstructionSpan("FBIW"[n // stages % 4], n % stages, n, *times_s) for n in each)


def tell(history: History, count: int, told: list[tuple[InstructionSpan, ...]], applied: Applied) -> None:
    """Iterations of a second each, whose records say that they last for days."""
    for number in range(1, count + 1):
        history.begin(number, applied, float(number), spoiled_before=False)
        history.record(IterationRecord(number - 1, DAYS_S, DAYS_S, told[number % len(told)]))


@pytest.mark.parametrize("applied", [Applied(Arm.DEFAULT), Applied(Arm.SWEEP, 0, "h", 900, 100_000)])
@pytest.mark.parametrize("kinds", [1, 50])
def test_runs_that_the_energy_counter_does_not_cover_are_dropped_beyond_the_budget(
    applied: Applied, kinds: int
) -> None:
    history = History(SMALL)
    tell(history, 600, [spans(100, first=n) for n in range(kinds)], applied)
    assert SMALL.pending_bytes / 2 < history.pending_bytes <= SMALL.pending_bytes + SMALL.iterations * 300
    assert not history.digest(lambda: NOTHING) or applied.block == 0


def test_what_spans_say_to_keep_is_what_they_keep() -> None:
    records = [spans(500, first=1000 * n) for n in range(1, 9)]
    known = KnownSteps()
    known.spans(records[0])
    tracemalloc.start()
    kept = [known.spans(record) for record in records]
    took, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took / 2 < sum(one.bytes for one in kept)
    assert took < sum(one.bytes for one in kept) + 100_000


def test_iterations_of_the_same_instructions_share_them() -> None:
    known = KnownSteps()
    first, second = known.spans(spans(100)), known.spans(spans(100))
    assert first.steps is second.steps
    assert second.bytes < first.bytes / 5


@pytest.mark.parametrize(
    ("told", "limit", "why"),
    [
        (spans(BUDGET.instructions + 1), "instructions", "iterations of 4097 instructions, up to 4096"),
        (spans(400, stages=100), "regressors", "400 kinds of instructions by stage, up to 64"),
    ],
)
def test_records_over_the_budget_are_refused_with_a_sentence_and_none_is_measured(
    told: tuple[InstructionSpan, ...], limit: str, why: str
) -> None:
    history = History()
    tell(history, 20, [told], Applied(Arm.DEFAULT))
    assert why in history.refused
    assert history.over_budget == limit
    assert history.order == ()
    assert history.iteration_time_s == 1.0, "the agent's own markers tell it"


def test_names_beyond_the_budget_are_not_measured() -> None:
    history = History(SMALL)
    counter = Trace(np.array([0.0, 1e6]), np.zeros(2), np.ones(2))
    for clock in range(900, 904):
        tell(history, 10, [spans(16, stages=4)], Applied(Arm.SWEEP, 0, "h", clock, 8))
        history.digest(lambda: counter)
    assert "by stage and clock, up to 40" in history.refused
    assert history.over_budget == "names"
    assert len(history.measured().instructions) <= 40


def test_the_oldest_windows_of_the_energy_counter_go_first() -> None:
    history, chance = History(SMALL), random.Random(1)
    edges = np.arange(0.0, 200.0, 0.1)
    counter = Trace(edges, np.cumsum([chance.uniform(9, 11) for _ in edges]), np.full(len(edges), 1e-4))
    tell(history, 190, [spans(4)], Applied(Arm.DEFAULT))
    history.digest(lambda: counter)
    assert history.window_cells <= SMALL.window_cells


def test_markers_are_kept_up_to_the_budget() -> None:
    history = History(replace(BUDGET, marks=100))
    history.begin(1, Applied(Arm.DEFAULT), 1.0, spoiled_before=False)
    history.mark((MarkerEntry(0, 1, MarkerEvent.BEGIN, "F", 0, number), 1.0) for number in range(50))
    for number in range(10_000):
        history.mark([(MarkerEntry(0, 1, MarkerEvent.BEGIN, "F", 0, number), 1.0)] * 3)
    assert history.marks == 100


times = st.floats(0, 1e6, exclude_max=True)


@given(st.lists(st.tuples(times, times, st.floats(-1e6, 1e6)), min_size=8, max_size=8))
def test_no_time_that_a_record_tells_reaches_beyond_the_markers(told: list[tuple[float, float, float]]) -> None:
    history = History()
    for number, (end_s, period_s, begin_s) in enumerate(told, 1):
        history.begin(number, Applied(Arm.DEFAULT), 2.0 * number, spoiled_before=False)
        history.mark([(MarkerEntry(0, number, MarkerEvent.END, "F", 0, 0), 2.0 * number + 1)])
        span = InstructionSpan("F", 0, 0, begin_s, max(begin_s, end_s))
        history.record(IterationRecord(number, end_s, period_s, (span,)))
    counter = Trace(np.array([0.0, 1e7]), np.zeros(2), np.ones(2))
    for number in range(len(told) + 1, len(told) + 9):
        history.begin(number, Applied(Arm.SWEEP), 2.0 * number, spoiled_before=False)
    history.digest(lambda: counter)
    whole = 2.0 * len(told)
    assert 0 <= history.iteration_time_s <= whole
    assert 0 <= history.control_time_s <= whole
    assert 0 <= (history.tail_s or 0.0) <= whole
    assert all(0 <= one.begin_s <= one.end_s <= whole for one in history.measured().timeline)


def test_more_gpus_share_what_eight_have() -> None:
    assert BUDGET.among(1) == BUDGET.among(8) == BUDGET
    assert BUDGET.among(16).pending_bytes == BUDGET.pending_bytes // 2
    assert Budget().among(16).silence_s == BUDGET.silence_s
