"""The generated orders against what torch executed, and against solver and referee."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import pytest
from hypothesis import given

from joulepath_planner import (
    SCHEDULES,
    Pipeline,
    Schedule,
    ScheduleError,
    early_recomputation_1f1b,
    gpipe,
    one_f_one_b,
    plan,
    recorded,
    schedule_by_name,
    simulate,
)
from joulepath_planner.graph.graph import Graph, least_period_s
from tests.examples import examples
from tests.planner.pipelines import HERE, profiled, schedules

RECORDED = json.loads((HERE / "data" / "orders.json").read_text())


def expected(run: dict[str, Any]) -> Schedule:
    return schedule_by_name(run["name"], run["ranks"] * run["chunks"], run["microbatches"], run["chunks"])


def check(run: dict[str, Any]) -> None:
    seen, generated = recorded(run["orders"]), expected(run)
    assert seen.orders == generated.orders, run
    # When activations leave can be seen only of those that do leave.
    rank_of = generated.rank_of
    sending = {
        one: at
        for one, at in generated.sent_after.items()
        if rank_of[one.stage] != rank_of.get(one.stage + 1, rank_of[one.stage])
    }
    assert seen.sent_after == sending, run


def recorded_names() -> set[str]:
    return {run["name"] for run in RECORDED["runs"]}


@pytest.mark.parametrize("name", sorted(recorded_names()))
def test_orders_are_what_torch_executed(name: str) -> None:
    for run in RECORDED["runs"]:
        if run["name"] == name:
            check(run)


def test_recordings_exist_of_all_of_torch_s_schedules() -> None:
    assert set(SCHEDULES) - recorded_names() == {"early-recomputation-1f1b"}


@pytest.mark.slow
def test_the_installed_torch_still_executes_the_same() -> None:
    # Starting torch takes seconds, each run a third of one: with the recorded torch one run tells enough.
    names = ["dualpipev"] if version("torch") == RECORDED["torch"].split("+")[0] else sorted(recorded_names())
    command = [sys.executable, str(HERE / "record_orders.py"), *names]
    runs = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=200).stdout)
    assert [run["name"] for run in runs] == names
    for run in runs:
        check(run)


def test_1f1b() -> None:
    assert one_f_one_b(4, 6).to_text() == [
        "F0 F1 F2 F3 B0 F4 B1 F5 B2 B3 B4 B5",
        "F0 F1 F2 B0 F3 B1 F4 B2 F5 B3 B4 B5",
        "F0 F1 B0 F2 B1 F3 B2 F4 B3 F5 B4 B5",
        "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 F5 B5",
    ]


def test_1f1b_with_fewer_microbatches_than_stages() -> None:
    assert one_f_one_b(3, 2).to_text() == ["F0 F1 B0 B1", "F0 F1 B0 B1", "F0 B0 F1 B1"]


def test_one_stage_is_a_training_without_a_pipeline() -> None:
    assert one_f_one_b(1, 2).to_text() == early_recomputation_1f1b(1, 2).to_text() == ["F0 B0 F1 B1"]
    assert gpipe(1, 2).to_text() == ["F0 F1 B0 B1"]


def test_early_recomputation_comes_before_the_gradient() -> None:
    schedule = early_recomputation_1f1b(2, 3)
    assert schedule.to_text() == ["F0 F1 C0 B0 F2 C1 B1 C2 B2", "F0 B0 F1 B1 F2 B2"]
    seen = simulate(Pipeline(schedule, profiled(schedule)))
    starts = {event.instruction.label: event.start_s for events in seen.ranks for event in events}
    assert starts["0:C0"] < starts["1:B0"]


def test_a_pair_sends_when_both_have_ended() -> None:
    schedule = recorded(["0:F0 0:F1+0:B0 0:B1", "1:F0 1:B0 1:F1 1:B1"])
    pipeline = Pipeline(schedule, profiled(schedule), transfer_s={(0, 1, "F"): 0.5})
    events = {event.instruction.label: event for events in simulate(pipeline).ranks for event in events}
    ended = events["0:B0"].start_s + events["0:B0"].duration_s
    assert events["1:F1"].start_s == pytest.approx(ended + 0.5)
    assert agreed_period_s(pipeline) > agreed_period_s(replace(pipeline, schedule=Schedule(schedule.orders)))


def test_the_last_stage_of_a_v_is_on_the_first_rank() -> None:
    for name in ("zbv", "dualpipev"):
        assert schedule_by_name(name, 6, 6).rank_of == {0: 0, 1: 1, 2: 2, 3: 2, 4: 1, 5: 0}


@examples(60)
@given(schedules())
def test_solver_and_referee_agree_on_the_period(schedule: Schedule) -> None:
    rank_of = schedule.rank_of
    edges = [(s, s + 1, "F") for s in range(schedule.stages - 1)] + [
        (s + 1, s, "I") for s in range(schedule.stages - 1)
    ]
    delays = {edge: 0.001 * (1 + index) for index, edge in enumerate(edges) if rank_of[edge[0]] != rank_of[edge[1]]}
    agreed_period_s(Pipeline(schedule, profiled(schedule), transfer_s=delays))


def agreed_period_s(pipeline: Pipeline) -> float:
    graph = Graph.of(pipeline)
    durations = [pipeline.profile.default(one.stage, one.kind).time_s for one in graph.instructions]
    period_s = least_period_s(graph, durations)
    assert period_s == pytest.approx(simulate(pipeline).iteration_time_s, rel=1e-9)
    return period_s


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_planned_within_its_time(name: str) -> None:
    schedule = schedule_by_name(name, 4, 4)
    pipeline = Pipeline(schedule, profiled(schedule))
    made = plan(pipeline)
    assert made.predicted_savings > 0
    assert simulate(pipeline, made.clocks).iteration_time_s <= made.t_min_s * (1 + 1e-9)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("1f2b", 4, 8), "schedule '1f2b' is unknown; use one of gpipe, 1f1b, interleaved-1f1b, early-recomputation"),
        (("1f1b", 0, 8), "1f1b: stages is 0"),
        (("zbv", 4, 0), "zbv: microbatches is 0"),
        (("1f1b", 4, 8, 2), "1f1b has 1 stage a rank, not 2; leave chunks out"),
        (("zbv", 6, 8, 3), "zbv has 2 stages a rank, not 3"),
        (("zbv", 5, 8), "zbv: 5 stages cannot be shared out by 2 a rank"),
        (("interleaved-1f1b", 8, 9, 2), "9 microbatches do not make 2 equal rounds; take a multiple of 4"),
        (("dualpipev", 8, 7), "dualpipev needs at least as many microbatches as stages, 8, not 7"),
    ],
)
def test_shapes_that_a_schedule_cannot_have_are_refused(arguments: Any, sentence: str) -> None:
    with pytest.raises(ScheduleError, match=sentence):
        schedule_by_name(*arguments)
