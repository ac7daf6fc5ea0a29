"""Rounding against the exact timing of one assignment, and against the linear program's bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_planner import Pipeline, frontier_plans, plan
from joulepath_planner.bound.problem import Problem
from joulepath_planner.clocks.rounding import Effort, Rounder
from joulepath_planner.clocks.timing import Timing
from joulepath_planner.graph.network import Network
from joulepath_planner.solvers.solution import SOLVER_TOLERANCE_S
from tests.examples import examples
from tests.planner.pipelines import gpt3, pipelines, scaled


@examples(40)
@given(pipelines(), st.floats(0, 0.3))
def test_the_network_s_earliest_starts_are_those_of_one_assignment(pipeline: Pipeline, slowdown: float) -> None:
    problem = Problem.of(pipeline)
    options = [problem.table.of([one]) for one in problem.graph.instructions]
    network = Network(problem.graph)
    period = problem.t_min_s * (1 + slowdown)
    for choice in (0, -1):
        durations = [option.total_s[choice] for option in options]
        timing = Timing(problem.graph, period, durations)
        starts, keeps = network.earliest_s(np.array(durations)[network.nodes, None], np.array([period]))
        assert bool(keeps[0]) == timing.feasible
        if timing.feasible:
            found = [0.0] * len(durations)
            for row, node in enumerate(network.nodes):
                found[node] = starts[row, 0]
            assert found == pytest.approx(timing.earliest_s)


@examples(30)
@given(pipelines(), st.floats(0, 0.3))
def test_rounding_keeps_the_period_and_more_effort_costs_nothing(pipeline: Pipeline, slowdown: float) -> None:
    problem = Problem.of(pipeline)
    program, options = problem.program(problem.single)
    deadline = problem.t_min_s * (1 + slowdown)
    solution = program.solve(deadline)
    period = min(deadline, solution.period_s + SOLVER_TOLERANCE_S)
    rounder = Rounder(problem.graph, options)
    spent = []
    for variations in (0, 5):
        (choices,) = rounder.choose([period], [solution.extra_s], Effort(3, variations))
        assert choices is not None
        durations = [option.total_s[choice] for option, choice in zip(options, choices, strict=True)]
        assert Timing(problem.graph, period * (1 + 1e-9), durations).feasible
        spent.append(sum(option.effective_j[choice] for option, choice in zip(options, choices, strict=True)))
    assert spent[1] <= spent[0] + 1e-9


def test_a_period_that_no_clocks_keep_has_no_choice() -> None:
    problem = Problem.of(scaled([1, 1.3], 3))
    _, options = problem.program(problem.single)
    rounder = Rounder(problem.graph, options)
    nothing = [0.0] * len(options)
    short, enough = rounder.choose([problem.t_min_s * 0.9, problem.t_min_s], [nothing, nothing], Effort(2, 2))
    assert short is None
    assert enough is not None


def test_plans_along_a_frontier_are_those_for_its_times() -> None:
    found, plans = frontier_plans(gpt3(), points=9)
    assert [made.deadline_s for made in plans] == [point.iteration_time_s for point in found.points]
    for point, made in zip(found.points, plans, strict=True):
        assert made.iteration_time_s == pytest.approx(point.iteration_time_s)
        assert made.lower_bound_j == pytest.approx(point.energy_j, rel=1e-6)
        assert -1e-6 < made.optimality_gap < 0.005
    alone = plan(gpt3(), deadline_s=plans[3].deadline_s, fixed=True)
    assert alone.energy_j == pytest.approx(plans[3].energy_j, rel=2e-3)


def test_polish_only_betters_a_plan() -> None:
    pipeline = scaled([1, 1.1, 1.4], 4)
    assert plan(pipeline, slowdown=0.03, polish_s=0.1).energy_j <= plan(pipeline, slowdown=0.03).energy_j
    with pytest.raises(ValueError, match="polish_s is -1"):
        plan(pipeline, polish_s=-1)


def test_seconds_that_exceed_the_period_by_rounding_are_cut_by_no_more() -> None:
    pipeline = gpt3(tail_s={stage: 0.2 * (stage % 3) for stage in range(8)})
    problem = Problem.of(pipeline)
    program, options = problem.program(problem.single)
    rounder = Rounder(problem.graph, options)
    extra = np.array([program.solve(problem.t_min_s).extra_s]).T * (1 + 1e-6)
    nodes, period = Network(problem.graph).nodes, np.array([problem.t_min_s])
    least = np.array([[option.total_s[0]] for option in options])
    kept = rounder._kept_seconds(extra[nodes], period) - least[nodes]
    assert kept.sum() > 0.98 * extra.sum()
    assert Network(problem.graph).earliest_s(kept + least[nodes], period)[1].all()
