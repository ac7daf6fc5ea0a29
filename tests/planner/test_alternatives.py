"""What coarser control costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_planner import Pipeline, alternatives, simulate
from tests.examples import examples
from tests.planner.pipelines import gpt3, pipelines

SOLVER = 1e-6


@examples(10)
@given(pipelines(), st.floats(0, 0.3))
def test_no_plan_beats_its_granularity_s_bound(pipeline: Pipeline, slowdown: float) -> None:
    found = {one.granularity: one for one in alternatives(pipeline, slowdown=slowdown)}
    for one in found.values():
        assert one.energy_j >= one.lower_bound_j * (1 - SOLVER)
        assert one.lower_bound_j >= found["instruction"].lower_bound_j * (1 - SOLVER)
    assert found["kind"].lower_bound_j == pytest.approx(found["rank"].lower_bound_j, rel=SOLVER)


@pytest.mark.slow
def test_the_published_pipeline_s_table() -> None:
    table = alternatives(gpt3(), slowdown=0.05)
    assert [one.granularity for one in table] == ["instruction", "phase", "kind", "rank"]
    assert [one.energy_j for one in table] == sorted(one.energy_j for one in table)
    deadline_s = simulate(gpt3()).iteration_time_s * 1.05
    assert all(one.iteration_time_s <= deadline_s * (1 + 1e-9) for one in table)
    assert all(one.energy_j <= one.lower_bound_j * 1.03 for one in table)
    assert table[0].switches > table[1].switches > 0
