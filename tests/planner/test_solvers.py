"""The ways to solve the linear program agree, and what one proves the others can't beat."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count, product

import highspy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_planner import (
    LagTable,
    Pipeline,
    PlanningError,
    Point,
    Profile,
    SolverError,
    one_f_one_b,
    plan,
    simulate,
)
from joulepath_planner.arrays import Floats, Ints
from joulepath_planner.bound.problem import Problem
from joulepath_planner.draft import Drafting
from joulepath_planner.graph.groups import Granularity, groups
from joulepath_planner.graph.options import Options
from joulepath_planner.solvers.choice import program
from joulepath_planner.solvers.cuts import CuttingPlanes
from joulepath_planner.solvers.interior import InteriorPointMethod
from joulepath_planner.solvers.relaxation import Relaxation
from joulepath_planner.solvers.simplex import Simplex
from joulepath_planner.solvers.solution import Program, Solver
from tests.examples import examples
from tests.planner.pipelines import gpt3, pipelines, scaled


def _both(problem: Problem) -> tuple[Program, Program, list[Options]]:
    options = problem.program(problem.single)[1]
    exact, large = (program(problem.graph, problem.single, options, problem.idle_w, large=size) for size in (10**9, 0))
    return exact, large, options


@examples(15)
@given(pipeline=pipelines(), slowdown=st.floats(0, 0.4), free=st.booleans())
def test_the_interior_point_method_proves_a_bound_just_under_the_optimum(
    pipeline: Pipeline, slowdown: float, free: bool
) -> None:
    problem = Problem.of(pipeline)
    exact, large, _ = _both(problem)
    period = problem.t_min_s * (1 + slowdown)
    at_least = problem.t_min_s if free else period
    best, found = exact.solve(period, at_least), large.solve(period, at_least)
    assert found.energy_j <= best.energy_j * (1 + 1e-7)
    assert found.energy_j >= best.energy_j * (1 - 1e-4)
    assert at_least - 1e-9 <= found.period_s <= period + 1e-9


@examples(40)
@given(
    pipeline=pipelines(),
    granularity=st.sampled_from(["phase", "kind", "rank"]),
    slowdowns=st.lists(st.floats(0, 0.4), min_size=2, max_size=3),
    free=st.booleans(),
)
def test_cutting_planes_and_simplex_agree_on_shared_clocks(
    pipeline: Pipeline, granularity: Granularity, slowdowns: list[float], free: bool
) -> None:
    problem = Problem.of(pipeline)
    members = groups(problem.graph, pipeline.schedule, granularity)
    options = [problem.table.of([problem.graph.instructions[node] for node in group]) for group in members]
    simplex, cuts = (way(problem.graph, members, options, problem.idle_w) for way in (Simplex, CuttingPlanes))
    for slowdown in slowdowns:
        period = problem.t_min_s * (1 + slowdown)
        best, found = (way.solve(period, problem.t_min_s if free else period) for way in (simplex, cuts))
        assert found.energy_j == pytest.approx(best.energy_j, rel=1e-6)
        assert len(found.extra_s) == len(members)
        assert problem.t_min_s - 1e-9 <= found.period_s <= period + 1e-9


@examples(15)
@given(pipeline=pipelines(), slowdown=st.floats(0, 0.4), seed=st.integers(0, 2**32))
def test_any_flow_at_all_proves_a_true_bound(pipeline: Pipeline, slowdown: float, seed: int) -> None:
    problem = Problem.of(pipeline)
    exact, _, options = _both(problem)
    relaxation = Relaxation.of(problem.graph, options, problem.idle_w)
    flow = np.random.default_rng(seed).exponential(300.0, len(relaxation.source))
    deadline = problem.t_min_s * (1 + slowdown)
    for at_least in (0.0, deadline):
        bound, slope = relaxation.bound(flow, at_least, deadline)
        assert bound <= exact.solve(deadline, at_least).energy_j * (1 + 1e-9)
    later = deadline * 1.1
    assert bound + slope * (later - deadline) <= exact.solve(later, later).energy_j * (1 + 1e-9)


@pytest.mark.parametrize("slowdown", [0.0, 0.05])
def test_a_large_pipeline_is_solved_as_well_as_by_simplex(slowdown: float) -> None:
    problem = Problem.of(gpt3(48))
    exact, large, options = _both(problem)
    period = problem.t_min_s * (1 + slowdown)
    best, found = exact.solve(period, period), large.solve(period, period)
    assert best.energy_j * (1 - 1e-5) <= found.energy_j <= best.energy_j * (1 + 1e-7)
    spent = sum(
        float(np.interp(option.total_s[0] + extra, option.total_s, option.effective_j))
        for option, extra in zip(_on_hull(options), found.extra_s, strict=True)
    )
    assert spent + problem.idle_w * period <= best.energy_j * (1 + 1e-4)


def _on_hull(options: list[Options]) -> list[Options]:
    return [
        Options(
            option.keys,
            tuple(option.clocks_mhz[k] for k in option.hull),
            tuple(option.times_s[k] for k in option.hull),
            tuple(option.total_s[k] for k in option.hull),
            tuple(option.effective_j[k] for k in option.hull),
            tuple(range(len(option.hull))),
        )
        for option in options
    ]


def test_a_coarser_hull_still_proves_a_true_bound() -> None:
    problem = Problem.of(scaled([1.0, 1.3, 0.8], 6))
    exact, _, options = _both(problem)
    relaxation = Relaxation.of(problem.graph, options, problem.idle_w)
    coarser = relaxation.coarser(options, 2)
    assert len(coarser.owner) == 2 * relaxation.size < len(relaxation.owner)
    period = problem.t_min_s * 1.1
    flow = InteriorPointMethod(coarser).solve(period, free=False).flow_w
    best = exact.solve(period, period).energy_j
    assert best * (1 - 1e-2) <= relaxation.bound(flow, period, period)[0] <= best * (1 + 1e-9)


def _foreign_solve(threads: int) -> object:
    """As another library, or a notebook, uses HiGHS."""
    solver = highspy.Highs()
    solver.silent()
    solver.setOptionValue("threads", threads)
    solver.addVar(0.0, 1.0)
    solver.run()
    return solver.getModelStatus()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "pipeline",
    [pytest.param(scaled([1.0, 1.2], 3), id="small"), pytest.param(gpt3(96), marks=pytest.mark.slow, id="large")],
)
def test_others_use_highs_before_and_after_with_threads_of_their_own(first: bool, pipeline: Pipeline) -> None:
    def beside() -> list[str]:
        """In a thread that has not called HiGHS yet."""
        statuses = [_foreign_solve(2)] if first else []
        found = [plan(pipeline, slowdown=0.1, granularity=one).granularity for one in ("phase", "kind", "rank")]
        statuses.append(_foreign_solve(2))
        assert statuses == [highspy.HighsModelStatus.kOptimal] * len(statuses)
        return list(found)

    with ThreadPoolExecutor(1) as fresh:
        assert fresh.submit(beside).result() == ["phase", "kind", "rank"]


def test_what_is_infeasible_is_told_from_what_failed() -> None:
    problem = Problem.of(scaled([1.0, 1.2], 3))
    found, _ = problem.program(problem.single)
    with pytest.raises(PlanningError, match="ask for a longer deadline"):
        found.solve(problem.t_min_s * 0.9)
    assert found.solve(problem.t_min_s).period_s == pytest.approx(problem.t_min_s)


@pytest.mark.parametrize("granularity", ["instruction", "phase", "kind", "rank"])
def test_a_solver_that_fails_never_makes_a_plan_of_default_clocks(
    granularity: Granularity, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hindered(self: Solver, *, presolve: bool, begin: object = Solver.__init__) -> None:
        begin(self, presolve=presolve)  # type: ignore[operator]
        self.setOptionValue("simplex_iteration_limit", 0)

    monkeypatch.setattr(Solver, "__init__", hindered)
    with pytest.raises(SolverError, match="nor that there is none"):
        plan(scaled([1.0, 1.2], 6), slowdown=0.1, granularity=granularity)


def _cheapest_shared(pipeline: Pipeline, granularity: Granularity, deadline_s: float) -> float:
    """Of all choices of a clock for each group."""
    problem = Problem.of(pipeline)
    members = groups(problem.graph, pipeline.schedule, granularity)
    clocks = {point.clock_mhz for points in pipeline.profile.points.values() for point in points}
    group_of = {problem.graph.instructions[node]: index for index, group in enumerate(members) for node in group}
    best = float("inf")
    for chosen in product(sorted(clocks), repeat=len(members)):
        seen = simulate(pipeline, [[chosen[group_of[one]] for one in order] for order in pipeline.schedule.orders])
        if seen.iteration_time_s <= deadline_s * (1 + 1e-9):
            best = min(best, seen.energy_j)
    return best


def _few_choices(pipeline: Pipeline) -> bool:
    """Few enough to try them all; with one figure of blocking power, as the program has one."""
    profile, groups_at_most = pipeline.profile, 3 * pipeline.schedule.stages
    most = max(len(points) for points in profile.points.values())
    return isinstance(profile.blocking_power_w, float) and most**groups_at_most <= 800


@examples(12)
@given(
    pipeline=pipelines(most_stages=2, most_microbatches=4).filter(_few_choices),
    granularity=st.sampled_from(["phase", "kind", "rank"]),
    slowdown=st.floats(0, 0.4),
)
def test_shared_clocks_are_the_best_of_all(pipeline: Pipeline, granularity: Granularity, slowdown: float) -> None:
    made = plan(pipeline, slowdown=slowdown, granularity=granularity)
    assert made.energy_j <= _cheapest_shared(pipeline, granularity, made.deadline_s) * (1 + 1e-7)


def test_a_clock_that_delays_one_kind_and_hastens_another_may_be_the_best() -> None:
    """As noise makes it: at 1300 MHz forwards are slower than at the highest clock, backwards as much faster."""
    points = {
        (stage, kind): (Point(1400, 0.1 * factor, 40.0 * factor), Point(1300, measured * factor, 35.0 * factor))
        for stage, factor in ((0, 1.0), (1, 0.7))
        for kind, measured in (("F", 0.102), ("B", 0.096))
    }
    pipeline = Pipeline(one_f_one_b(2, 4), Profile(points, 80.0))
    made = plan(pipeline, granularity="rank")
    assert made.granularity == "rank"
    assert made.energy_j <= _cheapest_shared(pipeline, "rank", made.deadline_s) * (1 + 1e-7)


@pytest.mark.parametrize("slowdown", [0.03, 0.08, 0.12])
def test_the_slack_of_one_rank_is_left_to_another_where_that_saves_more(slowdown: float) -> None:
    pipeline = scaled([1.0, 1.1, 0.9], 5)
    made = plan(pipeline, slowdown=slowdown, granularity="rank")
    assert made.energy_j <= _cheapest_shared(pipeline, "rank", made.deadline_s) * (1 + 1e-7)


def test_a_rank_gets_the_slack_that_greed_had_spent_on_another() -> None:
    """Greed ends with 926.2 J here; 893.4 keep the deadline too."""
    pipeline = scaled([1.0, 1.2], 8)
    made = plan(pipeline, slowdown=0.12, granularity="rank")
    assert made.energy_j <= _cheapest_shared(pipeline, "rank", made.deadline_s) * (1 + 1e-7)
    assert made.energy_j < 894


@pytest.mark.slow
@pytest.mark.parametrize(
    ("microbatches", "granularity", "greedy_j", "enough_j"),
    [(12, "phase", 6267, 6225), (96, "kind", 44243, 44060)],
)
def test_a_published_profile_saves_more_than_greed_finds(
    microbatches: int, granularity: Granularity, greedy_j: float, enough_j: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the search for it is a short one."""
    solved = count()

    def counted(self: Solver, columns: Ints, upper: Floats, within: Callable[..., object] = Solver.within) -> object:
        next(solved)
        return within(self, columns, upper)

    monkeypatch.setattr(Solver, "within", counted)
    assert plan(gpt3(microbatches), slowdown=0.05, granularity=granularity).energy_j < enough_j
    assert 10 < next(solved) < 200
    monkeypatch.setattr(Drafting, "_search", lambda *_: None)
    assert plan(gpt3(microbatches), slowdown=0.05, granularity=granularity).energy_j > greedy_j


@examples(15)
@given(
    pipeline=pipelines(),
    granularity=st.sampled_from(["auto", "phase", "kind", "rank"]),
    slowdown=st.floats(0, 0.4),
    lag_s=st.sampled_from([0.0, 0.005, 0.05]),
    reserve=st.sampled_from([0.0, 0.01]),
)
def test_what_is_searched_for_never_costs_more_than_what_greed_finds(
    pipeline: Pipeline, granularity: Granularity, slowdown: float, lag_s: float, reserve: float
) -> None:
    def energy_j() -> float:
        lags = LagTable.constant(lag_s) if lag_s else None
        return plan(pipeline, slowdown=slowdown, granularity=granularity, lags=lags, reserve=reserve).energy_j

    with pytest.MonkeyPatch.context() as greed:
        greed.setattr(Drafting, "_search", lambda *_: None)
        greedy_j = energy_j()
    assert energy_j() <= greedy_j * (1 + 1e-9)


def test_granularities_that_cannot_be_cheaper_are_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Solver, "within")
    assert plan(gpt3(), slowdown=0.05, lags=LagTable.constant(0.05)).granularity == "instruction"
