"""What isn't of the type that is announced is refused in a sentence that names it, and never deep inside."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import joulepath_planner
from joulepath_planner import ArgumentError, PlannerError, Point
from tests.planner.pipelines import scaled
from tests.planner.refusals import check_refusal

planner: Any = joulepath_planner
"""Without its types, which would refuse all this beforehand."""
PIPELINE: Any = scaled([1.0, 1.2], 2)
PROFILE, SCHEDULE = PIPELINE.profile, PIPELINE.schedule
FRONTIER = planner.frontier(PIPELINE, 3)
ROBUSTNESS = planner.robustness(PIPELINE, [[None] * 4] * 2, planner.Noise(0.01), samples=3)
ROW = [None] * 4


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (
            lambda: planner.simulate(PIPELINE, [[5] * 4, ROW]),
            "rank 0 has a clock of 5 MHz; give whole numbers from 1000 to",
        ),
        (lambda: planner.simulate(PIPELINE, [ROW, [-5] * 4]), "rank 1 has a clock of -5 MHz"),
        (lambda: planner.Referee(PIPELINE).replay([[1400.5] * 4, ROW]), "rank 0 has a clock of 1400.5 MHz"),
        (lambda: planner.Referee(PIPELINE).replay([["a"] * 4, ROW]), "rank 0 has a clock of 'a' MHz"),
        (lambda: planner.simulate(PIPELINE, "abc"), "clocks is 'abc'; it must be a list"),
        (lambda: planner.simulate(PIPELINE, None, 0.01), "lags is 0.01; it must be a LagTable or None"),
        (
            lambda: planner.Profile({(0, "F"): (planner.Point("1400", 1, 1),)}, 80.0),
            "at '1400' MHz: no GPU has such a clock",
        ),
        (lambda: planner.Profile({(0, "F"): (planner.Point(1400, "1", 1),)}, 80.0), "time_s is '1'; it must be finite"),
        (lambda: planner.Profile(PROFILE.points, "80"), "blocking_power_w is '80'; it must be a number or a mapping"),
        (lambda: planner.Profile(PROFILE.points, {"1400": 80}), "blocking_power_w is {'1400': 80}"),
        (lambda: planner.Profile([], 80.0), r"points is \[\]; it must be a mapping"),
        (lambda: planner.Profile(PROFILE.points, 80.0, 5), "fixed is 5; it must be a list"),
        (lambda: planner.Profile(PROFILE.points, 80.0, (), 5), "supported_clocks_mhz is 5; it must be a list of MHz"),
        (lambda: planner.Profile.from_csv(3, blocking_power_w=80.0), "path is 3; it must be the path of a file"),
        (
            lambda: planner.Profile.from_csv("x.csv", blocking_power_w="80"),
            "blocking_power_w is '80'; it must be a number",
        ),
        (lambda: planner.Pipeline(None, PROFILE), "schedule is None; it must be a Schedule"),
        (
            lambda: planner.Pipeline(SCHEDULE, PROFILE, tail_s={0: "1"}),
            "tail_s is {0: '1'}; it must be a mapping of a whole",
        ),
        (lambda: planner.Pipeline(SCHEDULE, PROFILE, {(0, 1): 1.0}), r"transfer_s is {\(0, 1\): 1.0}"),
        (lambda: planner.Pipeline(SCHEDULE, PROFILE, tail_s={0: 1e300}), r"tail_s\[0\] is 1e\+300; .* up to a day"),
        (lambda: planner.Pipeline(SCHEDULE, PROFILE, gpus={0: 1.5}), "gpus is {0: 1.5}"),
        (lambda: planner.one_f_one_b(2.5, 2), "stages is 2.5; it must be a whole number"),
        (lambda: planner.one_f_one_b(True, 2), "stages is True; it must be a whole number"),
        (lambda: planner.gpipe(2, "2"), "microbatches is '2'; it must be a whole number"),
        (lambda: planner.interleaved_1f1b(4, 4, "2"), "chunks is '2'"),
        (lambda: planner.Profile(PROFILE.points, {10**400: 80.0}), "MHz: no GPU has such a clock; give clocks in MHz"),
        (
            lambda: planner.Pipeline(SCHEDULE, PROFILE, gpus={0: 10**400}),
            "a stage runs on at least 1 GPU, and up to 100000",
        ),
        (lambda: planner.LagTable.constant(10**400), "a lag is a finite number of seconds, 0 or more and up to a day"),
        (lambda: planner.gpipe(10**9, 1), "stages is 1000000000; up to 1024 can be planned"),
        (lambda: planner.zbv(10**5, 1), "stages is 100000; up to 1024"),
        (lambda: planner.gpipe(4, 10**9), "4 stages with 1000000000 microbatches are too many"),
        (lambda: planner.schedule_by_name([], 1, 1), r"name is \[\]; it must be a text"),
        (lambda: planner.recorded("F0 B0"), "orders is 'F0 B0'; give a list with the order of each rank"),
        (lambda: planner.recorded([[3]]), "rank 0: 3 is no instruction"),
        (lambda: planner.recorded([[planner.Instruction("0", "F", 0)]]), "is no instruction"),
        (lambda: planner.recorded([f"F{'9' * 5000}"]), "is not understood; write it as B3"),
        (lambda: planner.Schedule(5), "orders is 5; give a tuple of instructions for each rank"),
        (
            lambda: planner.Schedule(SCHEDULE.orders, sent_after={3: 4}),
            "sent_after is {3: 4}; give a dict from instructions to instr",
        ),
        (
            lambda: planner.Schedule(SCHEDULE.orders, awaited_before=3),
            "awaited_before is 3; give a dict from instructions to instructions",
        ),
        (lambda: planner.Schedule(SCHEDULE.orders, held="F0"), "held is 'F0'; give a frozenset of instructions"),
        (lambda: planner.Instruction.parse(3), "instruction 3 is not understood; write it as B3"),
        (lambda: planner.LagTable.constant("x"), "up_s is 'x'; it must be a number"),
        (lambda: planner.LagTable(1.0, 1.0, 1.0, 1.0, {1: 2}), "targets is {1: 2}"),
        (lambda: planner.Noise("a"), "jitter is 'a'; it must be a number"),
        (lambda: planner.robustness(PIPELINE, [ROW, ROW], planner.Noise(0.01), samples="a"), "samples is 'a'"),
        (lambda: planner.robust_plan(PIPELINE, 0.01), "noise is 0.01; it must be a Noise"),
        (lambda: planner.Explainer(PIPELINE, None), "plan is None; it must be a Plan"),
        (lambda: planner.plan(None), "pipeline is None; it must be a Pipeline"),
        (lambda: planner.plan(PIPELINE, deadline_s="2"), "deadline_s is '2'; it must be a number or None"),
        (lambda: planner.plan(PIPELINE, slowdown=None), "slowdown is None; it must be a number"),
        (
            lambda: planner.plan(PIPELINE, granularity="fine"),
            "granularity is 'fine'; it must be one of instruction, ph",
        ),
        (lambda: planner.plan(PIPELINE, default_clock_mhz="1400"), "default_clock_mhz is '1400'"),
        (lambda: planner.frontier(PIPELINE, 2.5), "points is 2.5; it must be a whole number or None"),
        (lambda: planner.frontier_plans(PIPELINE, "3"), "points is '3'"),
        (lambda: planner.alternatives(PIPELINE, reserve="1%"), "reserve is '1%'"),
        (lambda: planner.plan_within(PIPELINE, energy_j="2kJ"), "energy_j is '2kJ'"),
        (lambda: planner.least_energy_by(FRONTIER, "2"), "deadline_s is '2'"),
        (lambda: planner.least_energy_within_slowdown(FRONTIER, "2"), "slowdown is '2'"),
        (lambda: planner.least_time_within_energy(FRONTIER, "2"), "budget_j is '2'"),
        (lambda: planner.least_time_within_power(None, 2.0), "frontier is None; it must be a Frontier"),
        (lambda: planner.beside_straggler(FRONTIER, "2"), "straggler_s is '2'"),
        (lambda: planner.share_out([5]), r"replicas is \[5\]; it must be a list, each a Replica"),
        (lambda: planner.Replica(FRONTIER, "2"), "factor is '2'"),
        (lambda: planner.fit(PROFILE, 5), "supported_clocks_mhz is 5; it must be a list, each a whole number"),
        (lambda: planner.dependencies(None), "schedule is None"),
        (lambda: planner.Referee(None), "pipeline is None"),
        (lambda: planner.Referee(PIPELINE).replay(None, None, "3"), "iterations is '3'; give a whole number from 3 on"),
        (lambda: planner.Referee(PIPELINE).replay(None, 0.01), "lags is 0.01; it must be a LagTable or None"),
        (lambda: FRONTIER.at("2"), "iteration_time_s is '2'; it must be a number"),
        (lambda: ROBUSTNESS.slowdown_at("a"), "quantile is 'a'; it must be a number"),
        (lambda: ROBUSTNESS.slowdown_at(95), "quantile is 95; give a share of the iterations, from 0 to 1"),
        (lambda: ROBUSTNESS.share_over(None), "bound is None; it must be a number"),
        (lambda: planner.Instruction.parse("F0", "a"), "stage is 'a'; it must be a whole number"),
        (
            lambda: PROFILE.at("0", "F", 1400),
            "nothing was measured of stage '0' 'F'; the profile has stages 0 to 1 and the kinds B, F",
        ),
        (lambda: PROFILE.at(0, "F", "1400"), "clock_mhz is '1400'; it must be a number of MHz"),
        (lambda: PROFILE.default(0, []), r"nothing was measured of stage 0 \[\]"),
        (lambda: PROFILE.default_clock_mhz(9), "nothing was measured of stage 9"),
    ],
)
def test_a_wrong_type_is_told_with_its_name_and_what_is_right(ask: Callable[[], object], says: str) -> None:
    with pytest.raises(PlannerError, match=says):
        ask()


def test_numbers_of_numpy_are_numbers() -> None:
    clocks = np.array([[1400] * 4, [1200] * 4])
    seen = planner.simulate(PIPELINE, clocks.tolist(), planner.LagTable.constant(np.float64(0.001)), np.int64(4))
    assert seen.iteration_time_s > 0
    assert planner.Pipeline(SCHEDULE, PROFILE, tail_s={np.int64(0): np.float32(0.5)}).rank_tail_s(0) == 0.5


def test_what_is_shown_of_a_value_is_short_however_deep_or_long_it_is() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, "x" * 10**6, list(range(10**6)), 10**4000):
        with pytest.raises(ArgumentError) as refused:
            planner.Noise(value) if not isinstance(value, int) else planner.Profile(PROFILE.points, 80.0, value)
        assert len(str(refused.value)) < 300


ODD: st.SearchStrategy[Any] = st.sampled_from(
    (None, "", "x", -1, 0, 5, 1.5, 1e300, 10**400, float("nan"), float("inf"), True, [], {}, [[]], (1, 2), b"x")
)


@given(ODD, st.sampled_from(sorted(planner.SCHEDULES)), ODD, ODD)
def test_schedules_are_made_or_refused_whatever_is_asked_for(
    stages: Any, name: str, microbatches: Any, odd: Any
) -> None:
    asked = ((stages, microbatches, None), (4, odd, None), (4, 4, odd))
    for shape in asked:
        check_refusal(partial(planner.schedule_by_name, name, *shape))


@given(st.lists(st.text("FBIWCX0123:+ -٣", max_size=30) | ODD, max_size=4) | ODD)
def test_orders_are_read_or_refused_whatever_is_written(orders: Any) -> None:
    check_refusal(lambda: planner.recorded(orders))


@given(ODD, ODD, ODD)
def test_profile_and_pipeline_are_made_or_refused_whatever_is_given(one: Any, other: Any, third: Any) -> None:
    for make in (
        lambda: planner.Profile({(0, "F"): (Point(one, other, third),), (0, "B"): (Point(1400, 0.1, 30.0),)}, 80.0),
        lambda: planner.Profile({one if isinstance(one, int | str | tuple) else 0: other}, third),
        lambda: planner.Profile(PROFILE.points, {1400: one} if isinstance(other, int) else one, other, third),
        lambda: planner.Pipeline(SCHEDULE, PROFILE, {(0, 1, "F"): one}, {(0, "F"): other}, {0: third}, {0: one}),
        lambda: planner.Pipeline(SCHEDULE, PROFILE, one, other, third, one),
        lambda: planner.LagTable(one, other, third, 0.1),
        lambda: planner.simulate(PIPELINE, [[one] * 4, [other] * 4]),
    ):  # fmt: skip
        check_refusal(make)
