"""One iteration on a common axis: stages aligned by what they exchange, power and critical path marked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.iteration import boxes, offsets
from joulepath_crds import InstructionTime

stage_times = st.lists(st.floats(0.08, 0.12), min_size=2, max_size=6)


@given(forward_s=stage_times, delay_s=st.floats(0, 0.01), data=st.data())
def test_stages_whose_clocks_differ_are_put_on_one_axis(
    pipeline: Callable[..., dict[int, tuple[InstructionTime, ...]]],
    forward_s: list[float],
    delay_s: float,
    data: st.DataObject,
) -> None:
    clocks = st.lists(st.floats(-5, 5), min_size=len(forward_s), max_size=len(forward_s))
    off = data.draw(clocks)
    stages = pipeline(forward_s, [2 * f for f in forward_s], 8, delay_s, off)
    found = offsets(stages)
    assert all(found[s] == pytest.approx(off[s] - off[0], abs=1e-6) for s in stages)


def test_the_critical_path_follows_the_slowest_stage(
    pipeline: Callable[..., dict[int, tuple[InstructionTime, ...]]],
) -> None:
    stages = pipeline([1, 1, 3, 1], [2, 2, 6, 2], 6, 0.0, [0, 7, -3, 1])
    placed = boxes(stages, lambda stage, instruction: 100.0 + stage)
    critical = [box for box in placed if box.critical]
    assert min(box.begin_s for box in placed) == 0
    assert sum(box.end_s - box.begin_s for box in critical) == pytest.approx(max(box.end_s for box in placed))
    assert {box.instruction for box in critical if box.stage == 2} == {f"{k}{m}" for k in "FB" for m in range(6)}
    assert {box.power_w for box in placed if box.stage == 3} == {103.0}


def test_stages_that_exchange_nothing_have_no_common_axis() -> None:
    alone = (InstructionTime(instruction="F0", stage=0, begin_s=0, end_s=1),)
    with pytest.raises(ValueError, match="rank 1 of the pipeline shares no forward or no backward"):
        offsets({0: alone, 1: alone})


@given(clocks_s=st.lists(st.floats(-5, 5), min_size=2, max_size=2), delay_s=st.floats(0, 0.01))
def test_ranks_with_several_stages_are_put_on_one_axis_a_row_each(
    pipeline: Callable[..., dict[int, tuple[InstructionTime, ...]]], clocks_s: list[float], delay_s: float
) -> None:
    first, second = clocks_s
    stages = pipeline([0.1, 0.08, 0.1, 0.12], [0.2, 0.16, 0.2, 0.24], 4, delay_s, [first, second, first, second])
    ranks = {rank: (*stages[rank], *stages[rank + 2]) for rank in (0, 1)}
    found = offsets(ranks)
    assert found[1] == pytest.approx(second - first, abs=1e-6)
    placed = boxes(ranks, lambda *_: 300.0)
    assert {(box.row, box.stage) for box in placed} == {(0, 0), (1, 1), (0, 2), (1, 3)}
    assert {box.row_name for box in placed} == {"rank 0", "rank 1"}
