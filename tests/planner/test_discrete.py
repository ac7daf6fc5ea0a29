"""The bound by whole clocks holds for every plan, is higher than the linear program's, and plans come closer to it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gaps import BAR, few_clocks, throttled
from joulepath_planner import LagTable, Pipeline, Point, Profile, one_f_one_b, plan, simulate
from joulepath_planner.bound import discrete
from joulepath_planner.bound.discrete import DiscreteBound
from joulepath_planner.bound.problem import Problem
from joulepath_planner.draft import Drafting
from joulepath_planner.solvers.interior import InteriorPointMethod
from tests.examples import examples
from tests.planner.pipelines import CLOCKS, gpt3, pipelines

SOLVER = 1e-6
WORST = [(1, 0.0), (77, 0.0)]
"""Seeds and slowdowns of `make bench-gaps` that the linear program and rounding leave up to 1.2% apart."""


def _bound(pipeline: Pipeline, deadline_s: float, size: int | None, *, fixed: bool = False) -> float:
    """With so many instructions in a window, or all in one."""
    problem = Problem.of(pipeline)
    options = problem.program(problem.single)[1]
    with pytest.MonkeyPatch.context() as small:
        small.setattr(discrete, "_WHOLE", 0 if size else 10**9)
        small.setattr(discrete, "_SIZES", ((0.0, size, 10**9),))
        try:
            found = DiscreteBound(problem.graph, options, problem.idle_w, deadline_s if fixed else 0.0, deadline_s)
        except ArithmeticError:  # no clocks to choose from
            return -np.inf
        return found.least_j(0.0, np.inf)


def _choices(pipeline: Pipeline) -> int:
    points = pipeline.profile.points
    return prod(len(points[one.stage, one.kind]) for order in pipeline.schedule.orders for one in order)


def _cheapest(pipeline: Pipeline, deadline_s: float, *, fixed: bool) -> float:
    """By the referee, of all choices of a clock for each instruction."""
    orders, best = pipeline.schedule.orders, float("inf")
    clocks = [point.clock_mhz for point in pipeline.profile.points[0, "F"]]
    for flat in product(clocks, repeat=sum(map(len, orders))):
        chosen = iter(flat)
        pace_s = deadline_s if fixed else None
        seen = simulate(pipeline, [[next(chosen) for _ in order] for order in orders], pace_s=pace_s)
        if seen.iteration_time_s <= deadline_s * (1 + 1e-9):
            best = min(best, seen.energy_j)
    return best


@examples(15)
@given(
    pipeline=pipelines(most_stages=2, most_microbatches=2).filter(lambda one: _choices(one) <= 300),
    slowdown=st.floats(0, 0.3),
    size=st.sampled_from([2, 3, None]),
    fixed=st.booleans(),
)
def test_no_choice_of_clocks_goes_below_the_bound(
    pipeline: Pipeline, slowdown: float, size: int | None, fixed: bool
) -> None:
    deadline_s = Problem.of(pipeline).t_min_s * (1 + slowdown)
    cheapest_j = _cheapest(pipeline, deadline_s, fixed=fixed)
    assert _bound(pipeline, deadline_s, size, fixed=fixed) <= cheapest_j * (1 + SOLVER)


@examples(10)
@given(
    pipeline=pipelines(most_stages=3, most_microbatches=3),
    slowdown=st.floats(0, 0.3),
    size=st.integers(4, 8),
    gpus=st.booleans(),
    capped=st.booleans(),
)
def test_no_plan_goes_below_the_bound_with_several_gpus_or_a_cap(
    pipeline: Pipeline, slowdown: float, size: int, gpus: bool, capped: bool
) -> None:
    counts = {stage: stage + 1 for stage in pipeline.profile.stages} if gpus else {}
    pipeline = replace(pipeline, gpus=counts).capped(
        CLOCKS[1] if capped and len(pipeline.profile.points[0, "F"]) > 2 else None
    )
    made = plan(pipeline, slowdown=slowdown)
    assert _bound(pipeline, made.deadline_s, size) <= made.energy_j * (1 + SOLVER)


def test_where_all_fits_into_one_window_the_bound_is_the_best_there_is() -> None:
    """Two clocks, so that the linear program mixes much."""
    points = {
        (stage, kind): (Point(1400, seconds, seconds * 380), Point(1000, seconds * 1.3, seconds * 290))
        for stage, factor in enumerate((1.0, 0.8))
        for kind, base in (("F", 0.05), ("B", 0.1))
        for seconds in (base * factor,)
    }
    pipeline = Pipeline(one_f_one_b(2, 2), Profile(points, 60.0))
    deadline_s = Problem.of(pipeline).t_min_s * 1.05
    cheapest_j = _cheapest(pipeline, deadline_s, fixed=False)
    assert _bound(pipeline, deadline_s, None) == pytest.approx(cheapest_j, rel=1e-4)
    assert Drafting(pipeline).bound(deadline_s).energy_j < cheapest_j * 0.995


@pytest.mark.parametrize(("seed", "slowdown"), WORST)
def test_the_widest_gaps_are_within_a_hundredth(seed: int, slowdown: float) -> None:
    pipeline = throttled(seed)
    made = plan(pipeline, slowdown=slowdown)
    assert simulate(pipeline, made.clocks).energy_j <= made.lower_bound_j * (1 + BAR)
    assert made.lower_bound_j > Drafting(pipeline).bound(made.deadline_s).energy_j * 1.002, (
        "the linear program is loose"
    )


@pytest.mark.slow
def test_the_same_pipeline_has_the_same_bound_and_plan() -> None:
    """The effort is counted, not timed."""
    first, second = (plan(few_clocks(10), slowdown=0.02) for _ in range(2))
    assert first == second


def test_a_small_pipeline_of_few_clocks_is_known_to_have_the_best_plan_there_is() -> None:
    made = plan(few_clocks(2), slowdown=0.05)
    assert made.optimality_gap < 1e-4
    assert made.energy_j > Drafting(few_clocks(2)).bound(made.deadline_s).energy_j * (1 + BAR)


def test_with_lags_an_instruction_may_run_at_two_clocks_so_the_bound_lets_it() -> None:
    pipeline, lags = few_clocks(2), LagTable.constant(0.0005)
    made = plan(pipeline, slowdown=0.05, lags=lags)
    assert made.lower_bound_j == pytest.approx(Drafting(pipeline).bound(made.deadline_s).energy_j, rel=1e-9)


def test_close_plans_and_coarser_ones_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(DiscreteBound, "least_j")
    monkeypatch.delattr("joulepath_planner.solvers.window.Window.solve")
    assert plan(gpt3(), slowdown=0.05).optimality_gap < discrete.CLOSE
    assert plan(few_clocks(2), slowdown=0.05, granularity="rank").lower_bound_j > 0


def test_prices_that_are_not_found_leave_the_linear_program_s_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsettled(*_: object, **__: object) -> None:
        raise ArithmeticError

    monkeypatch.setattr(InteriorPointMethod, "solve", unsettled)
    pipeline = few_clocks(10)
    made = plan(pipeline, slowdown=0.02)
    assert made.optimality_gap > discrete.CLOSE
    assert made.lower_bound_j == pytest.approx(Drafting(pipeline).bound(made.deadline_s).energy_j, rel=1e-9)
