"""The referee against sums done by hand, and against the solver's longest paths."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_planner import Instruction, LagTable, Pipeline, Point, Profile, Referee, one_f_one_b, simulate
from joulepath_planner.graph.graph import Graph, least_period_s
from tests.examples import examples
from tests.planner.pipelines import clocked, scaled

# One stage: F 1 s, B 2 s at 1000 MHz; half as fast at 500 MHz.
PROFILE = Profile(
    {
        (0, "F"): (Point(1000, 1.0, 300.0), Point(500, 2.0, 400.0)),
        (0, "B"): (Point(1000, 2.0, 600.0), Point(500, 4.0, 800.0)),
    },
    {1000: 100.0, 500: 50.0},
)
ONE = Pipeline(one_f_one_b(1, 1), PROFILE)


@examples(60)
@given(clocked())
def test_its_period_is_the_solver_s_greatest_cycle_mean(case: tuple[Pipeline, list[list[int | None]]]) -> None:
    pipeline, clocks = case
    chosen = {
        one: clock
        for order, row in zip(pipeline.schedule.orders, clocks, strict=True)
        for one, clock in zip(order, row, strict=True)
    }
    graph = Graph.of(pipeline)
    durations = [
        pipeline.profile.at(one.stage, one.kind, chosen[one] or pipeline.profile.default_clock_mhz(one.stage))[0]
        for one in graph.instructions
    ]
    assert simulate(pipeline, clocks).iteration_time_s == pytest.approx(least_period_s(graph, durations), rel=1e-9)


@examples(40)
@given(clocked())
def test_energy_is_compute_plus_waits_for_the_period(case: tuple[Pipeline, list[list[int | None]]]) -> None:
    pipeline, clocks = case
    pipeline = replace(pipeline, profile=Profile(pipeline.profile.points, 70.0))
    seen = simulate(pipeline, clocks)
    for events, energy in zip(seen.ranks, seen.energy, strict=True):
        waited = seen.iteration_time_s - sum(event.duration_s for event in events)
        assert energy.compute_j == pytest.approx(sum(event.energy_j for event in events))
        assert energy.wait_j + energy.tail_j == pytest.approx(70.0 * waited, abs=1e-6)


def test_two_even_stages_by_hand() -> None:
    profile = Profile({(s, k): PROFILE.points[0, k] for s in range(2) for k in "FB"}, 100.0)
    pipeline = Pipeline(one_f_one_b(2, 2), profile, transfer_s={(0, 1, "F"): 0.25, (1, 0, "B"): 0.5}, tail_s={0: 1.0})
    seen = simulate(pipeline)
    # Stage 1: F0 1.25-2.25, B0 -4.25, F1 -5.25, B1 -7.25. Its gradients arrive at 4.75 and 7.75; B1 ends at 9.75.
    assert seen.iteration_time_s == pytest.approx(10.75)
    assert [event.start_s for event in seen.ranks[0]] == pytest.approx([0, 1, 4.75, 7.75])
    assert [event.start_s for event in seen.ranks[1]] == pytest.approx([1.25, 2.25, 4.25, 5.25])
    assert [str(one) for one in seen.critical_path] == ["F0", "F0", "B0", "F1", "B1", "B1"]
    assert [event.slack_s for event in seen.ranks[0]] == pytest.approx([0, 2, 1, 0])
    assert seen.energy[0].tail_j == pytest.approx(100.0)
    assert seen.energy_j == pytest.approx(2 * 1800 + 100 * (2 * 10.75 - 12))


def test_a_lower_clock_comes_late() -> None:
    # F at 1000, B at 500, lag 0.5 s down, raised again in time for F: B runs its first 0.5 s at 1000 MHz (a quarter
    # of its work), and its raise is set at begin + 4 s - p95, or when it ends.
    seen = simulate(ONE, [[None, 500]], LagTable(up_s=0.0, down_s=0.5, p95_up_s=0.0, p95_down_s=0.5))
    assert seen.ranks[0][1].duration_s == pytest.approx(0.5 + 0.75 * 4.0)
    assert seen.ranks[0][1].energy_j == pytest.approx(0.25 * 600 + 0.75 * 800)
    assert seen.iteration_time_s == pytest.approx(1.0 + 3.5)
    assert seen.switches == 2


def test_a_higher_clock_comes_early() -> None:
    # B at 500 MHz takes 4 s; its raise is set at 3 s and in force at 3.5 s: an eighth of the work is left then.
    seen = simulate(ONE, [[None, 500]], LagTable(up_s=0.5, down_s=0.0, p95_up_s=1.0, p95_down_s=0.0))
    assert seen.ranks[0][1].duration_s == pytest.approx(3.5 + 0.125 * 2.0)
    assert seen.ranks[0][0].duration_s == pytest.approx(1.0)


def test_a_raise_longer_than_the_instruction_is_late_for_the_next() -> None:
    # F at 500 MHz takes 2 s; the raise for B is set at its begin and in force 1 s after its end: B does a quarter of
    # its work in that second, and the rest in 1.5 s.
    seen = simulate(ONE, [[500, None]], LagTable(up_s=3.0, down_s=0.0, p95_up_s=3.0, p95_down_s=0.0))
    assert seen.ranks[0][0].duration_s == pytest.approx(2.0)
    assert seen.ranks[0][1].duration_s == pytest.approx(1.0 + 1.5)


def test_a_second_set_queues_behind_the_first() -> None:
    # Down for F set when B ends, in force 1.5 s later; up for B set at F's begin + 2 - 1.5, but it begins when the
    # first is in force: 3 s. F: 1.5 s at 1000 MHz would be more than all of it, so it ends after 1 s, at 1000 MHz.
    seen = simulate(ONE, [[500, None]], LagTable.constant(1.5))
    assert seen.ranks[0][0].duration_s == pytest.approx(1.0)
    # B: 0.5 s at 1000 (a quarter), 1.5 s at 500 (three eighths), the rest at 1000 MHz.
    assert seen.ranks[0][1].duration_s == pytest.approx(0.5 + 1.5 + 0.375 * 2)


def test_work_stands_still_for_a_pause_once_a_clock_is_in_force() -> None:
    # Lowered at F's end, in force 0.5 s later: a quarter of B is done, then it stands still for 0.2 s. Its raise is in
    # force when it ends, and F stands still for 0.2 s before it begins.
    lags = LagTable(up_s=0.0, down_s=0.5, p95_up_s=0.0, p95_down_s=0.5, pause_s=0.2)
    seen = simulate(ONE, [[None, 500]], lags)
    f, b = seen.ranks[0]
    assert b.duration_s == pytest.approx(0.5 + 0.2 + 0.75 * 4.0)
    assert b.energy_j == pytest.approx(0.25 * 600 + 0.2 * 200 + 0.75 * 800)
    assert f.duration_s == pytest.approx(0.2 + 1.0)
    assert seen.iteration_time_s == pytest.approx(1.2 + 3.7)


def test_of_a_pause_only_what_lasts_beyond_a_wait_costs_time() -> None:
    # That before F is over when F begins. Of that before B 0.15 s are left, so that the raise, ordered for B's end as
    # predicted, comes 0.15 s before it, and with it another pause.
    lags = LagTable(up_s=0.0, down_s=0.0, p95_up_s=0.0, p95_down_s=0.0, pause_s=0.2)
    pipeline = Pipeline(ONE.schedule, PROFILE, overhead_s={(0, "F"): 0.25, (0, "B"): 0.05})
    seen = simulate(pipeline, [[None, 500]], lags)
    assert [event.duration_s for event in seen.ranks[0]] == pytest.approx([1.0, 4.0 + 0.2 + 0.15 / 2])


def test_of_several_switches_in_one_instruction_each_pauses_it() -> None:
    # Down for F at B's end, in force 1 s later; the raise for B waits for that: F stands still twice.
    lags = LagTable(up_s=0.5, down_s=0.25, p95_up_s=2.0, p95_down_s=0.25, pause_s=0.1)
    seen = simulate(ONE, [[500, None]], lags)
    assert seen.ranks[0][0].duration_s == pytest.approx(0.25 + 0.1 + 0.4 + 0.1 + (1 - 0.25 - 0.4 / 2) * 1.0)


def test_a_wait_costs_the_power_of_the_clock_in_force() -> None:
    pipeline = Pipeline(ONE.schedule, PROFILE, overhead_s={(0, "F"): 2.0, (0, "B"): 1.0})
    seen = simulate(pipeline, [[500, 500]])
    assert seen.energy[0].wait_j == pytest.approx(3.0 * 50.0)
    assert simulate(pipeline).energy[0].wait_j == pytest.approx(3.0 * 100.0)


def test_the_hosts_gap_follows_what_the_rank_did_before_and_not_what_it_waits_for() -> None:
    two = scaled([1, 1], 2)
    apart = Pipeline(two.schedule, two.profile, transfer_s={(0, 1, "F"): 0.25, (1, 0, "B"): 0.25})
    kinds = [(stage, kind) for stage in (0, 1) for kind in "FB"]
    hosted = Pipeline(two.schedule, two.profile, apart.transfer_s, dict.fromkeys(kinds, 0.2))
    for rank, seen in enumerate(simulate(hosted).ranks):
        for before, after in pairwise(seen):
            assert after.start_s - before.start_s - before.duration_s >= 0.2 - 1e-9, rank
    arrival = simulate(hosted).ranks[0][0]
    first = simulate(hosted).ranks[1][0]
    assert first.start_s - arrival.start_s - arrival.duration_s == pytest.approx(0.25)


def test_a_gap_of_an_instruction_stands_in_place_of_that_of_its_kind() -> None:
    backward = Instruction(0, "B", 0)
    pipeline = Pipeline(ONE.schedule, PROFILE, overhead_s={(0, "B"): 1.0}, gap_s={backward: 0.25})
    assert simulate(pipeline).iteration_time_s == pytest.approx(3.25)
    two = replace(pipeline, schedule=one_f_one_b(1, 2))
    assert simulate(two).iteration_time_s == pytest.approx(2 * 3.0 + 1.25)


def test_what_is_extra_ends_an_instruction_later_at_any_clock_and_costs_what_waiting_does() -> None:
    extra = {Instruction(0, "F", 0): 0.5}
    for clock, seconds, watts in ((None, 3.0, 100.0), (500, 6.0, 50.0)):
        seen = simulate(Pipeline(ONE.schedule, PROFILE, extra_s=extra), [[clock, clock]])
        assert seen.iteration_time_s == pytest.approx(seconds + 0.5)
        assert seen.energy[0].wait_j == pytest.approx(0.5 * watts)
        assert seen.ranks[0][0].duration_s == pytest.approx(seconds / 3), "its work alone"


def test_clocks_are_switched_by_when_what_is_extra_ends() -> None:
    extra, lags = {Instruction(0, "F", 0): 0.5}, LagTable.constant(0.2)
    # The lower clock is ordered then, so that the backward has run for 0.2 s when it is in force.
    seen = simulate(Pipeline(ONE.schedule, PROFILE, extra_s=extra), [[None, 500]], lags)
    assert seen.ranks[0][1].duration_s == pytest.approx(0.2 + (2.0 - 0.2) * 2)
    # A raise is ordered within it, and in force when it is over. (The gap is for the lower clock to come.)
    gaps = {Instruction(0, "F", 0): 0.25}
    seen = simulate(Pipeline(ONE.schedule, PROFILE, gap_s=gaps, extra_s=extra), [[500, None]], lags)
    assert [event.duration_s for event in seen.ranks[0]] == pytest.approx([2.0, 2.0])
    assert seen.iteration_time_s == pytest.approx(0.25 + 2.0 + 0.5 + 2.0)
    assert seen.energy[0].wait_j == pytest.approx(0.2 * 100.0 + 0.05 * 50.0 + 0.5 * 50.0)


def test_what_an_instruction_made_leaves_behind_what_is_extra() -> None:
    two = scaled([1, 1], 1)
    usual = simulate(two)
    seen = simulate(replace(two, extra_s={Instruction(0, "F", 0): 0.25}))
    assert seen.ranks[1][0].start_s == pytest.approx(usual.ranks[1][0].start_s + 0.25)
    assert seen.iteration_time_s == pytest.approx(usual.iteration_time_s + 0.25)


def test_the_tail_runs_at_default_clocks() -> None:
    pipeline = Pipeline(ONE.schedule, PROFILE, tail_s={0: 2.0})
    seen = simulate(pipeline, [[500, 500]])
    assert seen.energy[0].tail_j == pytest.approx(2.0 * 100.0)
    assert seen.switches == 2
    assert seen.iteration_time_s == pytest.approx(8.0)


def test_a_stage_with_a_long_tail_sets_the_period() -> None:
    pipeline = Pipeline(one_f_one_b(3, 2), scaled([1, 1, 1], 2).profile, tail_s={2: 5.0})
    last = simulate(pipeline).ranks[2]
    span = last[-1].start_s + last[-1].duration_s - last[0].start_s
    assert simulate(pipeline).iteration_time_s == pytest.approx(span + 5.0)


def test_default_clocks_are_none_or_0() -> None:
    assert simulate(ONE, [[0, 0]]) == simulate(ONE, [[None, None]]) == simulate(ONE)


def test_clocks_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="rank 0 has 2 instructions, but 1 clocks"):
        simulate(ONE, [[None]])
    with pytest.raises(ValueError, match="iterations is 2"):
        simulate(ONE, iterations=2)
    with pytest.raises(ValueError, match="up_s is -1"):
        LagTable.constant(-1)


def test_critical_instructions_have_no_slack() -> None:
    seen = simulate(scaled([1, 1.2, 1], 4))
    slack = {event.instruction: event.slack_s for events in seen.ranks for event in events}
    assert all(slack[one] == pytest.approx(0, abs=1e-9) for one in seen.critical_path)
    assert Instruction(1, "F", 3) in seen.critical_path


@examples(30)
@given(clocked(), st.floats(0.5, 1.0))
def test_stretching_everything_stretches_the_iteration(
    case: tuple[Pipeline, list[list[int | None]]], factor: float
) -> None:
    pipeline = Pipeline(case[0].schedule, case[0].profile)
    plain = simulate(pipeline, case[1], iterations=40)
    stretched = simulate(pipeline, case[1], iterations=40, stretch=lambda iteration, one: factor)
    assert stretched.iteration_time_s == pytest.approx(plain.iteration_time_s * factor, rel=1e-6)


def test_one_slow_iteration_shows_where_it_ran() -> None:
    seen = simulate(ONE, iterations=5, stretch=lambda iteration, one: 2.0 if iteration == 3 else 1.0)
    assert seen.iteration_times_s == pytest.approx((3.0, 3.0, 6.0, 3.0))
    assert seen.iteration_time_s == pytest.approx(4.0)
    assert seen.ranks[0][1].energy_j == pytest.approx(1200.0)


def test_a_slower_pipeline_sets_the_pace_and_the_wait_for_it_is_paid() -> None:
    seen = simulate(ONE, [[500, 500]], pace_s=10.0)
    assert seen.iteration_time_s == pytest.approx(10.0)
    assert seen.energy[0].wait_j == pytest.approx((10.0 - 6.0) * 50.0)
    assert seen.wait_power_w == pytest.approx((50.0,))
    assert simulate(ONE, [[500, 500]], pace_s=5.0).iteration_time_s == pytest.approx(6.0)


def test_all_gpus_of_a_stage_are_charged() -> None:
    pipeline = scaled([1, 1.2], 3)
    one = simulate(pipeline)
    many = simulate(Pipeline(pipeline.schedule, pipeline.profile, gpus={0: 8, 1: 2}))
    assert many.energy[0].total_j == pytest.approx(8 * one.energy[0].total_j)
    assert many.energy[1].total_j == pytest.approx(2 * one.energy[1].total_j)
    assert many.ranks[0][0].energy_j == pytest.approx(8 * one.ranks[0][0].energy_j)


def test_the_time_between_two_sets_is_told() -> None:
    # Down when F ends at 1 s, up (no lag) when B ends at 5 s; B lasts 4 s, F 1 s.
    assert simulate(ONE, [[None, 500]]).least_dwell_s == pytest.approx(1.0)
    assert simulate(ONE).least_dwell_s == float("inf")


def test_lags_by_target_are_those_of_the_clock_that_is_set() -> None:
    lags = LagTable(0.0, 0.0, 0.0, 0.0, targets={500: LagTable(0.0, 0.5, 0.0, 0.5)})
    assert simulate(ONE, [[None, 500]], lags).ranks[0][1].duration_s == pytest.approx(0.5 + 0.75 * 4.0)
    lags = LagTable(0.0, 0.0, 0.0, 0.0, targets={1000: LagTable(0.0, 0.5, 0.0, 0.5)})
    assert simulate(ONE, [[None, 500]], lags).ranks[0][1].duration_s == pytest.approx(4.0)


def test_how_long_a_tail_is_goes_by_the_lag_to_default_clocks() -> None:
    pipeline, clocks = replace(ONE, tail_s={0: 0.5}), [[500, 500]]
    quick, slow = LagTable.constant(0.05), LagTable.constant(0.2)
    assert simulate(pipeline, clocks, replace(slow, targets={1000: quick})).switches == 2
    assert simulate(pipeline, clocks, replace(quick, targets={1000: slow})).switches == 0


def test_a_seed_draws_lags_within_their_spread_and_always_the_same() -> None:
    lags = LagTable(up_s=0.2, down_s=0.2, p95_up_s=0.4, p95_down_s=0.4)
    first, again, other = (simulate(ONE, [[None, 500]], lags, iterations=50, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first.iteration_times_s)) == len(first.iteration_times_s)
    assert first.iteration_time_s == pytest.approx(simulate(ONE, [[None, 500]], lags).iteration_time_s, rel=0.05)


@pytest.mark.parametrize("lags", [LagTable.constant(0.6), LagTable(0.4, 1.0, 0.6, 1.2), LagTable(1.0, 0.4, 1.2, 0.6)])
@pytest.mark.parametrize("pace_s", [4.5, 5.0, 6.0])
def test_an_iteration_that_is_held_counts_once_its_clocks_repeat(lags: LagTable, pace_s: float) -> None:
    for clocks in ([[500, None]], [[None, 500]]):
        few, many = (Referee(ONE).replay(clocks, lags, count, pace_s=pace_s) for count in (3, 40))
        assert few.energy_j == pytest.approx(many.energy_j, rel=1e-9)
        assert few.iteration_time_s == pytest.approx(many.iteration_time_s)
