"""Explanations agree with the referee, whatever was planned."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulepath_planner import Explainer, Instruction, LagTable, Pipeline, ScheduleError, plan, simulate
from tests.planner.pipelines import gpt3, pipelines

PIPELINE = gpt3(4)
PLAN = plan(PIPELINE)
EXPLAINER = Explainer(PIPELINE, PLAN)


@settings(max_examples=15, deadline=None)
@given(pipelines(), st.data())
def test_a_neighbouring_clock_changes_what_the_referee_says_it_changes(pipeline: Pipeline, data: st.DataObject) -> None:
    made = plan(pipeline, slowdown=data.draw(st.sampled_from((0.0, 0.1))))
    explainer = Explainer(pipeline, made)
    rank = data.draw(st.integers(0, pipeline.ranks - 1))
    index = data.draw(st.integers(0, len(pipeline.schedule.orders[rank]) - 1))
    found = explainer.explain(pipeline.schedule.orders[rank][index])
    before = simulate(pipeline, made.clocks)
    assert found.critical == (found.instruction in before.critical_path)
    for other in (found.slower, found.faster):
        if other is not None:
            rows = [list(row) for row in made.clocks]
            rows[rank][index] = other.clock_mhz
            seen = simulate(pipeline, rows)
            assert other.energy_change_j == pytest.approx(seen.energy_j - before.energy_j, abs=1e-9)
            assert other.time_change_s == pytest.approx(seen.iteration_time_s - before.iteration_time_s, abs=1e-12)
            assert (other.late_s > 0) == (seen.iteration_time_s > made.deadline_s * (1 + 1e-9))
    assert all(sentence.endswith(".") for sentence in found.sentences)


def test_the_critical_path_is_told_in_order() -> None:
    path = simulate(PIPELINE, PLAN.clocks).critical_path
    told = [EXPLAINER.explain(one) for one in path]
    assert [one.after for one in told[:-1]] == list(path[1:])
    assert [one.before for one in told[1:]] == list(path[:-1])
    assert all(one.reason == "critical" and one.slack_s < 1e-6 for one in told)
    assert f"after {path[0].label} and before {path[2].label}: it has no slack." in told[1].sentences[1]
    assert "lengthen the iteration by" in told[1].sentences[2]


def test_nothing_is_critical_in_a_plan_that_ends_before_its_straggler() -> None:
    pace_s = 3 * PLAN.t_min_s
    made = plan(PIPELINE, deadline_s=pace_s, fixed=True)
    explainer = Explainer(PIPELINE, made, pace_s=pace_s)
    told = [explainer.explain(one) for one in explainer.replay.critical_path]
    assert told
    assert all(not one.critical and one.slack_s > 0.1 for one in told)
    assert all("off the critical path" in one.sentences[1] for one in told)


def test_slack_and_the_clocks_beside_are_told_in_numbers() -> None:
    rows = [one for order in PIPELINE.schedule.orders for one in order]
    told = [found for one in rows if (found := EXPLAINER.explain(one)).reason == "too little slack"]
    assert told
    words = " ".join(told[0].sentences)
    assert f"may end {1e3 * told[0].slack_s:.3f} ms later, too little for the next clock down" in words
    assert f"{told[0].clock_mhz} MHz (default 1410 MHz)" in words


def test_coarse_plans_say_that_the_clock_is_shared() -> None:
    made = plan(PIPELINE, granularity="phase", slowdown=0.1)
    explainer = Explainer(PIPELINE, made, LagTable.constant(0.005))
    told = [explainer.explain(one) for order in PIPELINE.schedule.orders for one in order]
    shared = [one for one in told if one.reason == "shared clock"]
    assert shared
    assert "phase granularity" in shared[0].sentences[1]


def test_the_costliest_are_one_of_each_stage_kind_and_clock() -> None:
    found = EXPLAINER.costliest(5)
    costs = [EXPLAINER.explain(one).own_j for one in found]
    assert len(found) == 5
    assert costs == sorted(costs, reverse=True)
    assert all(one.kind == "B" for one in found)


def test_an_instruction_that_nobody_runs_is_refused_with_one_that_is() -> None:
    with pytest.raises(ScheduleError, match=r"runs no 8:F0; .* such as 0:F0"):
        EXPLAINER.explain(Instruction(8, "F", 0))
