"""What may be asked of a frontier: right against the frontier itself and against plans made for the answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_planner import (
    Frontier,
    ObjectiveError,
    Pipeline,
    beside_straggler,
    frontier,
    least_energy_by,
    least_energy_within_slowdown,
    least_time_within_energy,
    least_time_within_power,
    plan,
)
from tests.examples import examples
from tests.planner.pipelines import pipelines, scaled

SOLVER = 1e-6


@pytest.fixture(scope="module")
def known() -> Frontier:
    return frontier(scaled([1.0, 1.3, 0.8], 4))


def test_a_slowdown_counts_from_t_min_and_stops_where_longer_costs_more(known: Frontier) -> None:
    assert least_energy_within_slowdown(known, 0.0).iteration_time_s == pytest.approx(known.t_min_s)
    assert least_energy_within_slowdown(known, 0.05).iteration_time_s == pytest.approx(1.05 * known.t_min_s)
    assert least_energy_within_slowdown(known, 9.0).iteration_time_s == pytest.approx(known.t_star_free_s)
    assert least_energy_within_slowdown(known, 0.05) == least_energy_by(known, 1.05 * known.t_min_s)


@examples(25)
@given(pipelines(), st.floats(0, 1))
def test_the_least_time_within_a_budget_meets_it_and_nothing_much_sooner_does(pipeline: Pipeline, where: float) -> None:
    known = frontier(pipeline, 9)
    highest, lowest = known.points[0].free_energy_j, known.points[-1].free_energy_j
    budget_j = lowest + where * (highest - lowest)
    found = least_time_within_energy(known, budget_j)
    assert found.free_energy_j <= budget_j * (1 + SOLVER)
    sooner = [point for point in known.points if point.iteration_time_s < found.iteration_time_s * (1 - SOLVER)]
    assert all(point.free_energy_j > budget_j * (1 - SOLVER) for point in sooner)


@examples(25)
@given(pipelines(), st.floats(0, 1))
def test_the_least_time_within_a_power_budget_meets_it_and_nothing_much_sooner_does(
    pipeline: Pipeline, where: float
) -> None:
    known = frontier(pipeline, 9)
    powers = [point.energy_j / point.iteration_time_s for point in known.points]
    budget_w = min(powers) + where * (max(powers) - min(powers))
    found = least_time_within_power(known, budget_w)
    assert found.energy_j / found.iteration_time_s <= budget_w * (1 + SOLVER)
    sooner = [point for point in known.points if point.iteration_time_s < found.iteration_time_s * (1 - SOLVER)]
    assert all(point.energy_j / point.iteration_time_s > budget_w * (1 - SOLVER) for point in sooner)


def test_a_plan_for_the_answer_costs_no_less_than_the_frontier_says() -> None:
    pipeline = scaled([1.0, 1.3, 0.8], 4)
    known = frontier(pipeline)
    answer = least_time_within_energy(known, 0.9 * known.baseline_energy_j)
    made = plan(pipeline, deadline_s=answer.iteration_time_s)
    assert made.energy_j == pytest.approx(answer.free_energy_j, rel=0.02)
    assert made.energy_j >= answer.free_energy_j * (1 - SOLVER)


def test_beside_a_straggler_time_is_bounded_by_t_min_and_t_star_fixed(known: Frontier) -> None:
    assert beside_straggler(known, known.t_min_s / 2).iteration_time_s == known.t_min_s
    between = (known.t_min_s + known.t_star_fixed_s) / 2
    assert beside_straggler(known, between).iteration_time_s == between
    assert beside_straggler(known, 9 * known.t_star_fixed_s).iteration_time_s == known.t_star_fixed_s


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda known: least_energy_within_slowdown(known, -0.1), "slowdown is -0.1.*0 or more"),
        (lambda known: least_energy_within_slowdown(known, float("nan")), "slowdown is nan"),
        (lambda known: least_energy_by(known, 0.01), "deadline of 0.01 s is under T_min, .*allow at least T_min"),
        (lambda known: least_time_within_energy(known, 1.0), "as little as 1 J; the least is .* J, at .* s"),
        (lambda known: least_time_within_power(known, 1.0), "as little as 1 W; the least is .* W"),
        (lambda known: beside_straggler(known, 0.0), "T' is 0 s; give the straggler's iteration time"),
        (lambda known: beside_straggler(known, float("inf")), "T' is inf s"),
    ],
)
def test_what_cannot_be_had_is_refused_with_what_can(known: Frontier, ask: object, says: str) -> None:
    assert callable(ask)
    with pytest.raises(ObjectiveError, match=says):
        ask(known)
