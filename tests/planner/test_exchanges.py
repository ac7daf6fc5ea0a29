"""Messages that leave later, are awaited sooner, or hold up who sends them: solver and referee beside a simulator that
runs programs of runs, sends and waits."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_planner import (
    ArgumentError,
    Pipeline,
    Schedule,
    ScheduleError,
    dependencies,
    perseus_text,
    plan,
    recorded,
    schedule_by_name,
    simulate,
    survey,
)
from joulepath_planner.graph.graph import Graph, least_period_s
from joulepath_planner.inputs.schedule import Clocks
from tests.examples import examples
from tests.planner.exchanging import (
    APART,
    INTERLEAVED,
    SENT_TOGETHER,
    TOGETHER,
    Exchanging,
    Ran,
    StuckError,
    play,
    text,
)
from tests.planner.pipelines import CLOCKS, profiled, schedules

exchangings = st.builds(
    Exchanging, st.sampled_from(["", "FB", "FI", "BF", "FF"]), st.booleans(), st.booleans(), st.booleans()
) | st.builds(replace, st.just(INTERLEAVED), held=st.booleans())


def pipeline_of(schedule: Schedule, exchanging: Exchanging, delay_s: float = 0.003) -> Pipeline:
    """With transfers, gaps and tails, no two alike."""
    marked = recorded(text(schedule, exchanging))
    kinds = sorted({(one.stage, one.kind) for order in marked.orders for one in order})
    neighbours = [(stage, stage + 1) for stage in range(schedule.stages - 1)]
    transfers = {(a, b, "F"): delay_s * (1 + a / 7) for a, b in neighbours}
    transfers |= {(b, a, kind): delay_s * (1 + b / 5) for a, b in neighbours for kind in "BI"}
    gaps = {key: 0.0002 * (1 + at % 5) for at, key in enumerate(kinds)}
    tails = {stage: 0.004 * (1 + stage % 3) for stage in range(schedule.stages)}
    return Pipeline(marked, profiled(marked), transfer_s=transfers, overhead_s=gaps, tail_s=tails)


def played(pipeline: Pipeline, exchanging: Exchanging, clocks: Clocks | None = None) -> tuple[float, list[list[Ran]]]:
    """Of a schedule without marks."""
    marked = pipeline.schedule
    rows = clocks or [[None] * len(order) for order in marked.orders]
    seconds = {
        one: pipeline.profile.at(one.stage, one.kind, clock or CLOCKS[0])[0]
        for order, row in zip(marked.orders, rows, strict=True)
        for one, clock in zip(order, row, strict=True)
    }
    schedule = Schedule(tuple(tuple(half for one in order for half in one.halves) for order in marked.orders))
    assert pipeline.overhead_s is not None
    return play(
        schedule, exchanging, seconds,
        transfer_s=pipeline.transfer_s, gap_s=pipeline.overhead_s, tail_s=pipeline.tail_s,
    )  # fmt: skip


@examples(120)
@given(schedules(), exchangings, st.data())
def test_solver_and_referee_take_what_a_simulator_of_exchanges_takes(
    schedule: Schedule, exchanging: Exchanging, data: st.DataObject
) -> None:
    pipeline = pipeline_of(Schedule(schedule.orders), exchanging)
    orders = pipeline.schedule.orders
    clocks = [[data.draw(st.sampled_from([None, *CLOCKS])) for _ in order] for order in orders]
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
    graph, at = Graph.of(pipeline), dict(zip(chain(*orders), chain(*clocks), strict=True))
    durations = [pipeline.profile.at(one.stage, one.kind, at[one] or CLOCKS[0])[0] for one in graph.instructions]
    assert least_period_s(graph, durations) == pytest.approx(period_s, rel=1e-9)


@examples(40)
@given(schedules(), exchangings)
def test_text_and_marks_are_the_same_thing(schedule: Schedule, exchanging: Exchanging) -> None:
    marked = recorded(text(schedule, exchanging))
    parts = tuple(tuple(half for one in order for half in one.halves) for order in marked.orders)
    assert parts == schedule.orders
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


def test_a_pair_has_one_clock_one_time_and_one_energy_and_its_plan_keeps_the_time() -> None:
    schedule = Schedule(schedule_by_name("interleaved-1f1b", 8, 8).orders)
    pipeline = pipeline_of(schedule, INTERLEAVED)
    made = plan(pipeline)
    default_s, _ = played(pipeline, INTERLEAVED)
    period_s, _ = played(pipeline, INTERLEAVED, made.clocks)
    assert period_s <= default_s * (1 + 1e-9)
    assert made.iteration_time_s == pytest.approx(period_s, rel=1e-9)
    assert made.lower_bound_j <= made.energy_j
    assert made.predicted_savings > 0.02
    planned = [one for rank in made.ranks for one in rank.instructions if len(one.instruction.halves) == 2]
    assert any(one.clock_mhz is not None for one in planned)
    for one in planned:
        seconds, joules = pipeline.profile.at(one.instruction.stage, one.instruction.kind, one.clock_mhz or CLOCKS[0])
        assert (one.duration_s, one.energy_j) == pytest.approx((seconds, joules))


def test_both_messages_of_a_pair_are_awaited_before_it_and_leave_when_it_ends() -> None:
    schedule = recorded(["F0 F1 F2&B0 B1 B2", "F0 F1&B0 F2&1:B1 B2"])
    needs = dependencies(schedule)
    (pair,) = (one for one in needs if one.label == "1:F2&1:B1")
    assert [need.after.label for need in needs[pair]] == ["0:F2&0:B0", "1:F1&1:B0"]
    (before,) = (one for one in needs if one.label == "0:F2&0:B0")
    assert {need.link for need in needs[before]} == {None, (1, 0, "B")}


@pytest.mark.parametrize(
    ("orders", "said"),
    [
        (["F0&B0"], "waits? for|never ends|forever"),
        (["F0 F1&B0 F0 B1"], "0:F0 is there twice"),
        (["F0 F1&1:B0 B1", "F0 F1 B0 B1"], "stage 1 is on ranks 0 and 1"),
        (["F0 B0&B1"], "'B0&B1' is not understood"),
    ],
)
def test_a_pair_that_cannot_be_is_refused(orders: list[str], said: str) -> None:
    with pytest.raises(ScheduleError, match=said):
        dependencies(recorded(orders))


def test_what_to_measure_next_is_told_of_more_pairs_than_are_looked_at() -> None:
    schedule = Schedule(schedule_by_name("interleaved-1f1b", 4, 80).orders)
    pipeline = pipeline_of(schedule, INTERLEAVED)
    assert set(survey(pipeline, CLOCKS, CLOCKS[1:2], CLOCKS[1:], 2).tells_most_mhz) <= set(CLOCKS)


def test_perseus_is_written_no_pairs() -> None:
    schedule = Schedule(schedule_by_name("interleaved-1f1b", 4, 4).orders)
    pipeline = pipeline_of(schedule, INTERLEAVED)
    clocks = [[None] * len(order) for order in pipeline.schedule.orders]
    with pytest.raises(ArgumentError, match="knows no pairs, such as 0:F"):
        perseus_text(pipeline, clocks)
