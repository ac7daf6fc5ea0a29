"""Lags by target and direction, and draws from their spread."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from statistics import median

import pytest

from joulepath_planner import LagTable, plan, simulate
from tests.planner.pipelines import gpt3

SPREAD = LagTable(0.010, 0.020, 0.015, 0.040, targets={900: LagTable(0.0, 0.1, 0.030, 0.1)})


def test_a_target_without_lags_of_its_own_has_those_of_the_table() -> None:
    assert SPREAD.of(1200).up_s == 0.010
    assert SPREAD.of(900).down_s == 0.1
    assert SPREAD.worst_p95_s == 0.1
    assert SPREAD.worst_p95_up_s == 0.030


@pytest.mark.parametrize(("target", "up"), [(1200, True), (1200, False), (900, True)])
def test_draws_have_the_median_and_the_95th_percentile_of_the_table(target: int, up: bool) -> None:
    source = Random(7)
    drawn = sorted(SPREAD.draw_s(target, up, source) for _ in range(4000))
    row = SPREAD.of(target)
    middle, p95 = (row.up_s, row.p95_up_s) if up else (row.down_s, row.p95_down_s)
    assert drawn[3800] == pytest.approx(p95, rel=0.1)
    if middle:
        assert median(drawn) == pytest.approx(middle, rel=0.05)


def test_without_a_spread_or_a_source_the_lag_is_the_median() -> None:
    assert SPREAD.draw_s(900, False, Random(1)) == 0.1
    assert SPREAD.draw_s(1200, True, None) == 0.010


def test_a_pause_is_kept_where_only_some_clocks_are_left() -> None:
    table = LagTable(0.01, 0.01, 0.02, 0.02, targets={900: LagTable.constant(0.06)}, pause_s=0.003)
    assert table.among({900}).pause_s == table.among({900, 1200}).pause_s == 0.003


def test_targets_of_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="the lags to 900 MHz have targets of their own"):
        LagTable(0, 0, 0, 0, targets={900: SPREAD})


def test_a_plan_leaves_out_clocks_that_are_slow_to_switch_to_where_others_then_switch_more_often() -> None:
    pipeline, two = gpt3(), LagTable(0.010, 0.010, 0.060, 0.060)
    slow = {clock for clock in pipeline.profile.clocks_mhz if 900 <= clock <= 1100}
    rows = {clock: LagTable.constant(0.060 if clock in slow else 0.010) for clock in pipeline.profile.clocks_mhz}
    table = replace(two, targets=rows)
    by_rows, by_two = plan(pipeline, lags=table), plan(pipeline, lags=two)
    assert not slow & {clock for row in by_rows.clocks for clock in row}
    assert by_rows.predicted_savings > by_two.predicted_savings + 0.03
    seen = simulate(pipeline, by_rows.clocks, table)
    assert seen.iteration_time_s <= by_rows.t_min_s * (1 + 1e-9)
    assert seen.energy_j == pytest.approx(by_rows.energy_j)


@pytest.mark.slow
def test_a_lag_to_a_clock_that_is_not_there_counts_for_nothing() -> None:
    slow = LagTable(0.005, 0.005, 0.005, 0.005, targets={210: LagTable.constant(0.5)})
    assert slow.among({1410, 1200}).worst_p95_s == 0.005
    assert slow.among({1410, 210}).worst_p95_s == 0.5
    assert SPREAD.among({900}).worst_p95_up_s == 0.030, "the table's own are of other clocks"
    assert plan(gpt3(), lags=slow).clocks == plan(gpt3(), lags=LagTable.constant(0.005)).clocks
