from __future__ import annotations

from dataclasses import replace

import pytest

from joulepath_planner import Instruction, Pipeline, ScheduleError, dualpipev, one_f_one_b, plan, recorded, simulate
from tests.planner.pipelines import scaled


def test_text_and_schedule_are_the_same_thing() -> None:
    schedule = one_f_one_b(3, 4)
    assert recorded(schedule.to_text()).orders == schedule.orders
    assert Instruction.parse("B3", stage=2) == Instruction.parse("2:B3") == Instruction(2, "B", 3)
    assert str(Instruction(2, "B", 3)) == "B3"
    paired = dualpipev(4, 4)
    assert paired.to_text()[1].startswith("F0 2:F0 F1 2:F1 F2 2:B0 2:F2 B0 >2:F2 F3 2:B1 >F3")
    assert recorded(paired.to_text()) == replace(paired, name="recorded")
    moved = ["F0 F1 B0 >F1 B1", "F0 <B1 F1 B0 >F1 B1"]
    assert recorded(moved).to_text() == moved
    assert recorded(["F0 F1+B0 B1", "F0 <B1 F1+B0 B1"]) == recorded(moved)


@pytest.mark.parametrize("text", ["", "B", "R1", "F-1", "1F"])
def test_a_text_that_is_no_instruction_is_refused(text: str) -> None:
    with pytest.raises(ScheduleError, match="is not understood"):
        Instruction.parse(text, stage=0)


@pytest.mark.parametrize(
    ("orders", "sentence"),
    [
        (["F0 F0 B0"], "0:F0 is there twice"),
        (["F0 B0", "0:F1 0:B1"], "stage 0 is on ranks 0 and 1"),
        (["1:F0 1:B0"], "numbered from 0"),
        ([], "at least one rank"),
        (["F0 B0", "X0"], "stage 1 has no F"),
        (["F0 B0 <B0"], "rank 0: nothing stands behind <0:B0"),
        ([">F0 F0 B0"], "instruction '>F0' is not understood"),
        (["F0 >B0 B0"], ">0:B0 stands before 0:B0; what it made leaves when it ends, or later"),
        (["F0 <F0 B0"], "<0:F0 stands behind 0:F0; what it takes is there when it begins"),
        (["F0 B0 >1:F0", "F0 B0"], ">1:F0: its rank doesn't run 1:F0; move it to the one that does"),
        (["F0 B0 F1 >>>F0 B1"], "instruction '>F0' is not understood"),
        (["F0 F1+B0 >F1 B1"], ">0:F1 is there twice; keep the one where it happens"),
        (["F0 <B1 F1 B0 <B1 B1"], "<0:B1 is there twice"),
        (["F0 B0 >F9"], ">0:F9: its rank doesn't run 0:F9"),
        (["F0 F1 B0 B1", "F0 F1 B0"], "stage 1 has no backward of microbatch 1; add its B1, or its I1 and W1"),
        (["F0 B0 I0 W0"], "stage 0 runs both B0 and I0; keep B, or I and W"),
    ],
)
def test_orders_that_are_no_schedule_are_refused(orders: list[str], sentence: str) -> None:
    with pytest.raises(ScheduleError, match=sentence):
        recorded(orders)


def test_the_referee_finds_a_deadlock_by_itself() -> None:
    pipeline = Pipeline(recorded(["F0 B0 F1 B1", "F1 B1 F0 B0"]), scaled([1, 1], 2).profile)
    with pytest.raises(ScheduleError, match="waits forever"):
        simulate(pipeline)


def test_two_stages_on_one_rank_and_split_backwards_are_planned() -> None:
    profile = scaled([1, 1.3, 1, 1.2], 2).profile
    points = dict(profile.points)
    for stage in range(4):
        points[stage, "I"] = points[stage, "W"] = points[stage, "F"]
    looped = [
        "0:F0 0:F1 2:F0 2:F1 2:I0 2:I1 0:I0 0:W0 0:I1 0:W1 2:W0 2:W1",
        "1:F0 1:F1 3:F0 3:F1 3:I0 3:I1 1:I0 1:I1 1:W0 1:W1 3:W0 3:W1",
    ]
    pipeline = Pipeline(recorded(looped), type(profile)(points, 80.0))
    made = plan(pipeline)
    assert made.ranks[0].stages == (0, 2)
    assert made.predicted_savings > 0
    assert simulate(pipeline, made.clocks).iteration_time_s <= made.t_min_s * (1 + 1e-9)


def test_fixed_work_is_no_microbatch() -> None:
    schedule = recorded(["X0 F0 B0 X1 F1 B1 X2"])
    assert schedule.microbatches == 2
    assert recorded(schedule.to_text()) == schedule


def test_a_stage_is_on_the_rank_that_executes_it() -> None:
    schedule = recorded(["0:F0 3:F0 3:B0 0:B0", "1:F0 2:F0 2:B0 1:B0"])
    assert schedule.rank_of == {0: 0, 3: 0, 1: 1, 2: 1}
