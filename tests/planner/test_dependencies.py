from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_planner import Instruction, Pipeline, Schedule, ScheduleError, dependencies, plan, recorded
from tests.planner.pipelines import scaled, schedules


def needs(orders: list[str]) -> dict[str, str]:
    return {
        one.label: " ".join(map(str, sorted(need.after.label for need in sources)))
        for one, sources in dependencies(recorded(orders)).items()
    }


def test_activations_go_down_and_gradients_up() -> None:
    assert needs(["F0 B0", "F0 B0"]) == {"0:F0": "", "1:F0": "0:F0", "1:B0": "1:F0", "0:B0": "0:F0 1:B0"}


def test_a_split_backward_sends_its_gradient_from_i() -> None:
    assert needs(["F0 B0", "F0 I0 W0"])["0:B0"] == "0:F0 1:I0"
    assert needs(["F0 I0 W0", "F0 B0"])["0:I0"] == "0:F0 1:B0"
    assert needs(["F0 I0 W0", "F0 B0"])["0:W0"] == "0:I0"


def test_recomputation_takes_no_gradient_and_the_backward_takes_it() -> None:
    found = needs(["F0 C0 B0", "F0 C0 I0 W0"])
    assert found["0:C0"] == "0:F0"
    assert found["0:B0"] == "0:C0 1:I0"
    assert found["1:I0"] == "1:C0"


def test_a_pair_lets_go_of_its_activations_together() -> None:
    assert needs(["F0 F1+B0 B1", "F0 B0 F1 B1"])["1:F1"] == "0:B0"
    assert needs(["F0 F1 B0 B1", "F0 B0 F1 B1"])["1:F1"] == "0:F1"
    assert needs(["0:F0 1:F0 1:B0 0:F1+0:B0 1:F1 1:B1 0:B1"])["1:F1"] == "0:F1"


def test_fixed_work_waits_for_its_rank_only() -> None:
    found = needs(["X0 F0 B0 X1", "F0 B0"])
    assert found["0:X0"] == found["0:X1"] == ""


@given(schedules())
def test_nothing_comes_before_what_it_waits_for(schedule: Schedule) -> None:
    place = {one: index for index, one in enumerate(dependencies(schedule))}
    assert len(place) == sum(map(len, schedule.orders))
    for one, sources in dependencies(schedule).items():
        assert all(place[need.after] < place[one] for need in sources)
    for order in schedule.orders:
        assert [place[one] for one in order] == sorted(place[one] for one in order)


@pytest.mark.parametrize(
    ("orders", "sentence"),
    [
        (["F0 B0", "F1 B1"], "0:B0 needs 1:B0, which no rank executes"),
        (["F0 B0", "F0 B0", "F1 B1 B0"], "2:F1 needs 1:F1, which no rank executes"),
        (["W0 F0 B0"], "0:W0 needs 0:I0, which no rank executes"),
        (["F0 B0 C1"], "0:C1 needs 0:F1, which no rank executes"),
    ],
)
def test_what_nobody_executes_is_named(orders: list[str], sentence: str) -> None:
    with pytest.raises(ScheduleError, match=sentence):
        dependencies(recorded(orders))


@pytest.mark.parametrize(
    ("orders", "sentence"),
    [
        (
            ["F0 B0", "B0 F0"],
            "rank 1 runs 1:B0 only after 1:F0, which rank 1 runs after 1:B0",
        ),
        (
            ["F0 B0 F1 B1", "F1 B1 F0 B0"],
            "rank 0 runs 0:B0 only after 1:B0, which rank 1 runs after 1:F1; "
            "rank 1 runs 1:F1 only after 0:F1, which rank 0 runs after 0:B0",
        ),
    ],
)
def test_a_cycle_is_named_by_its_ranks_and_instructions(orders: list[str], sentence: str) -> None:
    with pytest.raises(ScheduleError, match=f"the schedule never ends: {sentence}. Reorder these"):
        plan(Pipeline(recorded(orders), scaled([1, 1], 2).profile))


@given(st.data())
def test_an_order_turned_around_is_either_executed_or_refused(data: st.DataObject) -> None:
    orders = [list(order) for order in data.draw(schedules()).orders]
    order = data.draw(st.sampled_from(orders))
    order[:] = data.draw(st.permutations(order))
    schedule = Schedule(tuple(map(tuple, orders)))
    try:
        found = dependencies(schedule)
    except ScheduleError as error:
        assert "the schedule never ends" in str(error)  # noqa: PT017 - it may as well be executed
    else:
        assert set(found) == {one for order in orders for one in order}
        assert all(isinstance(one, Instruction) for one in found)
