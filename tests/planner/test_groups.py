"""Groups of instructions that share a clock."""

from __future__ import annotations

import pytest

from joulepath_planner import Instruction, LagTable, Pipeline, Point, Profile, one_f_one_b, plan
from joulepath_planner.graph.graph import Graph
from joulepath_planner.graph.groups import groups, phases, runs
from joulepath_planner.graph.options import OptionTable
from tests.planner.pipelines import scaled


def named(pipeline: Pipeline, found: list[list[int]]) -> list[str]:
    instructions = Graph.of(pipeline).instructions
    return sorted(" ".join(instructions[node].label for node in group) for group in found)


def test_phases_end_with_the_first_backward_and_begin_with_the_last_forward() -> None:
    order = tuple(Instruction.parse(text, stage=0) for text in ["F0", "F1", "B0", "F2", "B1", "B2"])
    assert phases(order) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(("granularity", "count"), [("instruction", 24), ("phase", 9), ("kind", 6), ("rank", 3)])
def test_every_instruction_is_in_one_group(granularity: str, count: int) -> None:
    pipeline = scaled([1, 1, 1], 4)
    found = groups(Graph.of(pipeline), pipeline.schedule, granularity)  # type: ignore[arg-type]
    assert sorted(node for group in found for node in group) == list(range(24))
    assert len(found) == count


def test_short_instructions_run_together_with_those_after_them() -> None:
    pipeline = scaled([1, 1], 3)
    graph = Graph.of(pipeline)
    lasts = [0.05 if one.kind == "F" else 0.1 for one in graph.instructions]
    assert named(pipeline, runs(graph, lasts, 0.05)) == sorted(one.label for one in graph.instructions)
    assert named(pipeline, runs(graph, lasts, 0.08)) == [
        "0:B0",
        "0:B2",
        "0:F0 0:F1",
        "0:F2 0:B1",
        "1:F0 1:B0",
        "1:F1 1:B1",
        "1:F2 1:B2",
    ]
    assert named(pipeline, runs(graph, lasts, 0.4)) == [
        "0:F0 0:F1 0:B0 0:F2 0:B1 0:B2",
        "1:F0 1:B0 1:F1 1:B1 1:F2 1:B2",
    ]
    assert named(pipeline, runs(graph, lasts, 9.0)) == [
        "0:F0 0:F1 0:B0 0:F2 0:B1 0:B2",
        "1:F0 1:B0 1:F1 1:B1 1:F2 1:B2",
    ]


def test_clocks_of_equal_sums_are_one_option_and_the_default_one_stays() -> None:
    forward = (Point(1400, 0.010, 4.0), Point(1300, 0.012, 3.0), Point(1200, 0.014, 2.0))
    backward = (Point(1400, 0.020, 8.0), Point(1300, 0.018, 7.0), Point(1200, 0.022, 6.0))
    profile = Profile(
        {(stage, kind): points for stage in (0, 1) for kind, points in (("F", forward), ("B", backward))}, 50
    )
    options = OptionTable(profile, 50.0).of([Instruction(0, "F", 0), Instruction(0, "B", 0)])
    assert options.clocks_mhz == (1400, 1200)
    made = plan(Pipeline(one_f_one_b(2, 4), profile), slowdown=0.1, granularity="rank", lags=LagTable.constant(0.004))
    assert made.slowdown <= 0.1
