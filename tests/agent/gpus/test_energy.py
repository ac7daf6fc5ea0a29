"""What is kept of an energy counter."""

from __future__ import annotations

import numpy as np
import pytest

from joulepath_agent.gpus.energy import Edges, Trace


def counted(period_s: float, duration_s: float, watts: float = 300.0) -> Trace:
    """The trace of a GPU of constant power whose counter moves so often."""
    edges = Edges()
    for number in range(round(duration_s / period_s)):
        edges.add(number * period_s, number * period_s * watts, 0.001)
    rows = edges.read()
    return Trace(rows[:, 0], rows[:, 1], rows[:, 2])


@pytest.mark.parametrize("period_s", [0.02, 0.1])
def test_joules_can_be_told_for_a_block_of_half_an_hour(period_s: float) -> None:
    trace = counted(period_s, 2000.0)
    begin_s, end_s = 150.3, 1950.7
    assert trace.covers(begin_s, end_s)
    assert trace.joules_at(end_s) - trace.joules_at(begin_s) == pytest.approx(300.0 * (end_s - begin_s), rel=1e-9)


def test_the_last_minutes_are_kept_edge_by_edge_and_in_order() -> None:
    trace = counted(0.02, 2000.0)
    spacing = np.diff(trace.time_s)
    assert (spacing > 0).all()
    assert spacing[trace.time_s[1:] > 2000.0 - 160.0].max() < 0.021
    assert spacing.max() < 1.1


def test_memory_is_bounded_however_fast_the_counter_is() -> None:
    trace = counted(0.001, 200.0)
    assert len(trace.time_s) <= 2 * 8000 + 200
