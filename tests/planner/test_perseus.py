"""Perseus's schedules: what is written is read again, and what is none is refused and never executed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_planner import (
    ArgumentError,
    Pipeline,
    PlannerError,
    ScheduleError,
    one_f_one_b,
    perseus_clocks,
    perseus_text,
    plan,
    simulate,
)
from joulepath_planner.inputs.schedule import Clocks
from tests.examples import examples
from tests.planner.pipelines import clocked, profiled, scaled, schedules

PIPELINE = scaled([1.0, 1.3], 2)
THEIRS = """\
[
[('forward', 1400), ('forward', 1300), ('backward', 1200), ('backward', 1400)],
[('forward', 1400), ('backward', 1400), ('forward', 1400), ('backward', 1400)],
]
# Iteration 30 cost change: 0.5
# Iteration 30 total cost: 100.1
# Iteration 30 total cost with P2P: 120.3
"""
ROWS = ((1400, 1300, 1200, 1400), (1400,) * 4)


def test_a_schedule_as_zeus_writes_it_is_read() -> None:
    assert perseus_clocks(THEIRS, PIPELINE.schedule) == ROWS


def test_the_artifacts_bare_clocks_are_read() -> None:
    text = "[\n[1400, 1300, 1200, 1400],\n[1400, 1400, 1400, 1400],\n]\n# Iteration 3: cost change 0.1 \n"
    assert perseus_clocks(text, PIPELINE.schedule) == ROWS


def test_it_is_written_as_zeus_reads_it() -> None:
    written = perseus_text(PIPELINE, ((None, 1300, 1200, 1400), (None,) * 4))
    assert written == THEIRS.partition("#")[0]


@examples(25)
@given(clocked())
def test_what_is_written_is_read_as_the_same_plan(drawn: tuple[Pipeline, Clocks]) -> None:
    pipeline, clocks = drawn
    read = perseus_clocks(perseus_text(pipeline, clocks), pipeline.schedule)
    before, after = simulate(pipeline, clocks), simulate(pipeline, read)
    assert after.iteration_time_s == before.iteration_time_s
    assert after.energy_j == before.energy_j


@examples(25)
@given(schedules())
def test_every_schedule_and_kind_has_its_names(schedule: object) -> None:
    pipeline = Pipeline(schedule, profiled(schedule))  # type: ignore[arg-type]
    clocks = [[1200] * len(order) for order in pipeline.schedule.orders]
    assert [list(row) for row in perseus_clocks(perseus_text(pipeline, clocks), pipeline.schedule)] == clocks


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is no list of Python; Perseus writes one list for each rank"),
        ("[" * 100_000, "it is no list of Python"),
        ("__import__('os').system('true')", "it is no list of Python"),
        ("[x for x in ()]", "it is no list of Python"),
        ("3", "it is 3; Perseus writes one list for each rank"),
        ("[1, 2]", r"it is \[1, 2\]"),
        ("[[1400] * 4] * 2", "it is no list of Python"),
        ("[[1400, 1400, 1400, 1400]]", "it has clocks of 1 ranks, and the schedule 2; plan for as many stages"),
        ("[[1400], [1400]]", "rank 0 has 1 clocks, and the schedule 4 instructions; plan for as many microbatches"),
        (THEIRS.replace("forward", "load"), r"rank 0 has \('load', 1400\) where the schedule runs 0:F0; give the"),
        (THEIRS.replace("1300", "'fast'"), r"rank 0: \('forward', 'fast'\) is no clock; write MHz"),
        (THEIRS.replace("1300", "None"), "is no clock"),
    ],
)
def test_what_is_no_schedule_of_perseus_is_refused(text: str, says: str) -> None:
    with pytest.raises(ScheduleError, match=says):
        perseus_clocks(text, PIPELINE.schedule)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    with pytest.raises(ScheduleError):
        perseus_clocks(f"[[open({str(mark)!r}, 'w')]]", PIPELINE.schedule)
    assert not mark.exists()


def test_clocks_that_the_gpus_dont_have_are_refused_by_the_referee() -> None:
    clocks = perseus_clocks(THEIRS.replace("1300", "5"), PIPELINE.schedule)
    with pytest.raises(ArgumentError, match="rank 0 has a clock of 5 MHz"):
        simulate(PIPELINE, clocks)


def test_clocks_of_other_instructions_are_not_written() -> None:
    with pytest.raises(ArgumentError, match="clocks are of other instructions"):
        perseus_text(PIPELINE, plan(Pipeline(one_f_one_b(2, 3), PIPELINE.profile)).clocks)


@given(st.text("[](),'forward1234 \n#-", max_size=60) | st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    told = "."
    try:
        perseus_clocks(text, PIPELINE.schedule)
    except PlannerError as refused:
        told = str(refused)
    assert told.endswith(".")
