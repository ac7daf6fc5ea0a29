"""Messages that leave later, are awaited sooner, or hold up who sends them: solver and referee beside a simulator that
runs programs of runs, sends and waits."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_planner import (
    Pipeline,
    Schedule,
    ScheduleError,
    dependencies,
    plan,
    recorded,
    schedule_by_name,
    simulate,
)
from joulepath_planner.graph.graph import Graph, least_period_s
from joulepath_planner.inputs.schedule import Clocks
from tests.examples import examples
from tests.planner.exchanging import APART, SENT_TOGETHER, TOGETHER, Exchanging, Ran, StuckError, play, text
from tests.planner.pipelines import CLOCKS, profiled, schedules

exchangings = st.builds(
    Exchanging, st.sampled_from(["", "FB", "FI", "BF", "FF"]), st.booleans(), st.booleans(), st.booleans()
)


def pipeline_of(schedule: Schedule, exchanging: Exchanging, delay_s: float = 0.003) -> Pipeline:
    """With transfers, gaps and tails, no two alike."""
    marked = recorded(text(schedule, exchanging))
    kinds = sorted({(one.stage, one.kind) for order in schedule.orders for one in order})
    neighbours = [(stage, stage + 1) for stage in range(schedule.stages - 1)]
    transfers = {(a, b, "F"): delay_s * (1 + a / 7) for a, b in neighbours}
    transfers |= {(b, a, kind): delay_s * (1 + b / 5) for a, b in neighbours for kind in "BI"}
    gaps = {key: 0.0002 * (1 + at % 5) for at, key in enumerate(kinds)}
    tails = {stage: 0.004 * (1 + stage % 3) for stage in range(schedule.stages)}
    return Pipeline(marked, profiled(schedule), transfer_s=transfers, overhead_s=gaps, tail_s=tails)


def played(pipeline: Pipeline, exchanging: Exchanging, clocks: Clocks | None = None) -> tuple[float, list[list[Ran]]]:
    schedule = pipeline.schedule
    rows = clocks or [[None] * len(order) for order in schedule.orders]
    seconds = {
        one: pipeline.profile.at(one.stage, one.kind, clock or CLOCKS[0])[0]
        for order, row in zip(schedule.orders, rows, strict=True)
        for one, clock in zip(order, row, strict=True)
    }
    assert pipeline.overhead_s is not None
    return play(
        Schedule(schedule.orders), exchanging, seconds,
        transfer_s=pipeline.transfer_s, gap_s=pipeline.overhead_s, tail_s=pipeline.tail_s,
    )  # fmt: skip


@examples(120)
@given(schedules(), exchangings, st.data())
def test_solver_and_referee_take_what_a_simulator_of_exchanges_takes(
    schedule: Schedule, exchanging: Exchanging, data: st.DataObject
) -> None:
    schedule = Schedule(schedule.orders)
    pipeline = pipeline_of(schedule, exchanging)
    clocks = [[data.draw(st.sampled_from([None, *CLOCKS])) for _ in order] for order in schedule.orders]
    try:
        period_s, _ = played(pipeline, exchanging, clocks)
    except StuckError:
        with pytest.raises(ScheduleError, match="the schedule never ends"):
            dependencies(pipeline.schedule)
        with pytest.raises(ScheduleError, match="waits forever"):
            simulate(pipeline)
        return
    replayed = simulate(pipeline, clocks)
    assert replayed.iteration_time_s == pytest.approx(period_s, rel=1e-9)
    graph, at = Graph.of(pipeline), dict(zip(chain(*schedule.orders), chain(*clocks), strict=True))
    durations = [pipeline.profile.at(one.stage, one.kind, at[one] or CLOCKS[0])[0] for one in graph.instructions]
    assert least_period_s(graph, durations) == pytest.approx(period_s, rel=1e-9)


@examples(40)
@given(schedules(), exchangings)
def test_text_and_marks_are_the_same_thing(schedule: Schedule, exchanging: Exchanging) -> None:
    marked = recorded(text(schedule, exchanging))
    assert marked.orders == schedule.orders
    assert recorded(marked.to_text()) == marked


@pytest.mark.parametrize("exchanging", [TOGETHER, SENT_TOGETHER, Exchanging("FB", True, True, held=True)])
@pytest.mark.parametrize("name", ["1f1b", "interleaved-1f1b"])
def test_a_plan_that_knows_of_exchanges_keeps_its_time_and_one_that_does_not_is_late(
    name: str, exchanging: Exchanging
) -> None:
    schedule = Schedule(schedule_by_name(name, 6 if name == "1f1b" else 8, 8).orders)
    pipeline = pipeline_of(schedule, exchanging)
    made = plan(pipeline)
    default_s, _ = played(pipeline, exchanging)
    period_s, _ = played(pipeline, exchanging, made.clocks)
    assert period_s <= default_s * (1 + 1e-9)
    assert made.iteration_time_s == pytest.approx(period_s, rel=1e-9)
    assert made.predicted_savings > 0.02
    assert made.lower_bound_j <= made.energy_j
    unaware_s, _ = played(pipeline_of(schedule, APART), APART)
    assert unaware_s < default_s * 0.99, "what is exchanged together takes longer"
