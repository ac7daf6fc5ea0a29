"""Explanations agree with the referee, whatever was planned."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_planner import (
    Explainer,
    Instruction,
    LagTable,
    Pipeline,
    ScheduleError,
    interleaved_1f1b,
    plan,
    simulate,
)
from tests.examples import examples
from tests.planner.pipelines import gpt3, pipelines, scaled

PIPELINE = gpt3(4)
PLAN = plan(PIPELINE)
EXPLAINER = Explainer(PIPELINE, PLAN)


@examples(15)
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


@pytest.mark.slow
def test_coarse_plans_say_that_the_clock_is_shared() -> None:
    made = plan(PIPELINE, granularity="phase", slowdown=0.1)
    explainer = Explainer(PIPELINE, made, LagTable.constant(0.005))
    told = [explainer.explain(one) for order in PIPELINE.schedule.orders for one in order]
    shared = [one for one in told if one.reason == "shared clock"]
    assert shared
    assert "phase granularity" in shared[0].sentences[1]


def test_the_costliest_are_one_of_each_stage_and_kind() -> None:
    found = EXPLAINER.costliest(5)
    assert len({(one.stage, one.kind) for one in EXPLAINER.costliest(16)}) == 16
    costs = [EXPLAINER.explain(one).own_j for one in found]
    assert len(found) == 5
    assert costs == sorted(costs, reverse=True)
    assert all(one.kind == "B" for one in found)


@examples(15)
@given(pipelines(), st.sampled_from((0.0, 0.1)), st.sampled_from((None, LagTable.constant(0.003))), st.booleans())
def test_the_parts_that_are_saved_add_up_to_what_the_plan_saves(
    pipeline: Pipeline, slowdown: float, lags: LagTable | None, paced: bool
) -> None:
    pace_s = 1.3 * simulate(pipeline).iteration_time_s if paced else None
    made = plan(pipeline, deadline_s=pace_s, slowdown=0.0 if paced else slowdown, lags=lags, fixed=paced)
    savings = Explainer(pipeline, made, lags, pace_s).savings()
    assert sum(one.saved_j for one in savings) == pytest.approx(made.baseline_energy_j - made.energy_j, abs=1e-6)
    assert sum(one.default_j for one in savings) == pytest.approx(made.baseline_energy_j)
    assert {one.rank for one in savings} == set(range(pipeline.ranks))


def test_savings_are_told_by_phase_and_stage_of_each_rank() -> None:
    pipeline = scaled([1.0, 1.3, 0.8, 0.9], 4)
    looped = Pipeline(interleaved_1f1b(4, 4), pipeline.profile)
    explainer = Explainer(looped, plan(looped, slowdown=0.2))
    parts = [(one.rank, one.stage, one.part) for one in explainer.savings()]
    assert len(set(parts)) == len(parts)
    assert [part for part in parts if part[2] == "waits"] == [(0, 0, "waits"), (1, 1, "waits")]
    assert {(rank, stage) for rank, stage, _ in parts} == {(0, 0), (0, 2), (1, 1), (1, 3)}
    warm = next(one for one in explainer.savings() if (one.rank, one.stage, one.part) == (0, 0, "warm-up"))
    seen = simulate(looped).ranks[0]
    first = next(place for place, event in enumerate(seen) if event.instruction.kind == "B")
    own = [event.energy_j for event in seen[:first] if event.instruction.stage == 0]
    assert warm.default_j == pytest.approx(sum(own))


def test_an_instruction_that_nobody_runs_is_refused_with_one_that_is() -> None:
    with pytest.raises(ScheduleError, match=r"runs no 8:F0; .* such as 0:F0"):
        EXPLAINER.explain(Instruction(8, "F", 0))
