"""The soonest plan within a budget keeps it, and nothing much sooner would."""

from __future__ import annotations

import pytest

from joulepath_planner import ArgumentError, ObjectiveError, frontier, plan, plan_within, simulate
from tests.planner.pipelines import gpt3

PIPELINE = gpt3(4)
KNOWN = frontier(PIPELINE)


@pytest.mark.parametrize("share", [pytest.param(0.3, marks=pytest.mark.slow), 0.9])
def test_joules_are_kept_as_soon_as_can_be(share: float) -> None:
    least_j = KNOWN.at(KNOWN.t_star_free_s).energy_j
    budget_j = share * KNOWN.points[0].energy_j + (1 - share) * least_j * 1.005
    found = plan_within(PIPELINE, energy_j=budget_j)
    assert found.held_s is None
    assert found.plan.energy_j <= budget_j * (1 + 1e-9)
    sooner_s = found.plan.deadline_s - 2e-3 * KNOWN.t_min_s
    if sooner_s > KNOWN.t_min_s:
        assert plan(PIPELINE, deadline_s=sooner_s).energy_j > budget_j


@pytest.mark.slow
def test_watts_are_kept_by_an_iteration_that_is_held_where_that_is_what_lowers_them() -> None:
    late_s = (KNOWN.t_star_free_s + KNOWN.t_star_fixed_s) / 2
    budget_w = KNOWN.at(late_s).energy_j / late_s
    found = plan_within(PIPELINE, power_w=budget_w)
    assert found.held_s is not None
    assert found.held_s > KNOWN.t_star_free_s
    seen = simulate(PIPELINE, found.plan.clocks, pace_s=found.held_s)
    assert seen.energy_j / seen.iteration_time_s <= budget_w * (1 + 1e-9)


@pytest.mark.slow
def test_what_no_plan_keeps_is_told_with_what_can_be_had() -> None:
    with pytest.raises(ObjectiveError, match=r"no plan costs as little as 1 J; the least is .* Allow that much\.$"):
        plan_within(PIPELINE, energy_j=1.0)
    with pytest.raises(ObjectiveError, match=r"no plan draws as little as 1 W; .*, or a finer granularity\.$"):
        plan_within(PIPELINE, power_w=1.0, granularity="rank")
    with pytest.raises(ArgumentError, match="give one of them"):
        plan_within(PIPELINE)
