"""The conductor: which clock a rank wishes for, and when."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_clocks.gpus.lags import UpLags
from joulepath_clocks.gpus.wish import DEFAULT, Wish, height
from joulepath_clocks.ranks.conductor import Conductor
from joulepath_clocks.ranks.reason import Obstacle, Reason
from joulepath_rules import (
    Arm,
    Blocks,
    Instruction,
    RankState,
    StagePlan,
    Sweep,
    arm_of,
    next_boundary,
)
from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent
from tests.clocks.ranks.conducting import DURATIONS, LAG_S, ORDER, at, conductor, entries, plan, run, sweep


def test_a_lower_clock_is_wished_at_the_end_and_a_higher_one_ahead_of_it() -> None:
    player = conductor()
    player.set_plan(plan())
    assert run(player, 10) == [
        Wish(900),
        Wish(900, 1200, 0.2 - LAG_S),  # F0 at 900, F1 needs 1200: raised ahead
        Wish(1200),
        Wish(1200, DEFAULT, 0.2 + 0.3 - LAG_S),
        Wish(DEFAULT),
        Wish(DEFAULT),  # B0 at default clocks, B1 is lower: not before B0's end
        Wish(600),
        Wish(600, DEFAULT, 0.2 + 0.3 + 0.4 + 0.5 - LAG_S),  # the tail's length is unknown: default clocks
        Wish(DEFAULT),
        None,
    ]


@pytest.mark.parametrize("at_end", [False, True])
def test_it_is_known_before_a_begin_when_a_raise_will_go_by_it(at_end: bool) -> None:
    """Since the end before it, and since the begin before that already."""
    player, told_s, wished_s = conductor(), [], []
    player.set_plan(plan())
    expected_s = math.inf
    for entry in entries(10):
        if entry.event is MarkerEvent.BEGIN:
            told_s.append(player.raise_in_s(False) if at_end else expected_s)
        wish = player.on_event(entry, 0.0)
        if entry.event is MarkerEvent.BEGIN:
            wished_s.append(math.inf if wish is None else wish.later_at_s)
        expected_s = player.raise_in_s(entry.event is MarkerEvent.BEGIN)
    assert told_s == wished_s
    assert min(told_s) < math.inf
    assert math.inf in told_s
    assert player.raise_in_s(False) == math.inf
    player.set_plan(sweep())
    run(player, 11)
    assert player.raise_in_s(False) == math.inf


def test_a_raise_goes_by_the_lag_to_its_own_target_where_that_is_known() -> None:
    player = conductor(lags_up=UpLags(LAG_S, {1200: 3 * LAG_S}))
    player.set_plan(plan())
    to_1200, to_default = (run(player, 10)[at] for at in (1, 3))
    assert to_1200 == Wish(900, 1200, 0.2 - 3 * LAG_S)
    assert to_default == Wish(1200, DEFAULT, 0.2 + 0.3 - LAG_S)
    player.on_event(next(entries(11)), 0.0)
    assert player.raise_in_s(False) == pytest.approx(0.2 - 3 * LAG_S)


def test_how_long_a_tail_is_goes_by_the_lag_to_default_clocks() -> None:
    short, long = (
        conductor(lags_up=UpLags(other, {DEFAULT: to_default}), tail_s=5 * LAG_S)
        for other, to_default in ((LAG_S, 2 * LAG_S), (2 * LAG_S, LAG_S))
    )
    for player in (short, long):
        player.set_plan(plan())
    assert run(short, 10)[-2] == Wish(900, DEFAULT, sum(DURATIONS) + 5 * LAG_S + 2 * LAG_S)
    assert run(long, 10)[-2] == Wish(DEFAULT)


def test_a_raise_is_never_wished_before_the_begin_of_the_instruction_before() -> None:
    player = conductor(lags_up=UpLags(1.0))
    player.set_plan(plan())
    assert run(player, 10)[1] == Wish(900, 1200, 0.0)


def test_a_short_tail_leads_straight_into_the_next_iteration_and_a_long_one_runs_at_default_clocks() -> None:
    short, long = conductor(tail_s=3 * LAG_S), conductor(tail_s=5 * LAG_S)
    for player in (short, long):
        player.set_plan(plan())
    assert run(short, 10)[-2] == Wish(900, DEFAULT, sum(DURATIONS) + 3 * LAG_S + LAG_S)
    assert run(long, 10)[-2] == Wish(DEFAULT)


def test_what_lasts_longer_than_the_usual_tail_has_default_clocks_a_lag_later() -> None:
    """An evaluation, or a checkpoint; it may come every few iterations, and be most of the median."""
    end_s = sum(DURATIONS)
    for usual_s, until_s in ((0.0, LAG_S), (2 * LAG_S, 2 * LAG_S), (30.0, 4 * LAG_S)):
        player = conductor(tail_s=LAG_S, usual_tail_s=usual_s)
        player.set_plan(plan())
        wishes = run(player, 10)
        assert wishes[-2] == Wish(900, DEFAULT, end_s + until_s + LAG_S)
        assert wishes[-1] is None, "the end of the step changes nothing"
        assert at(player, 11) == Wish(900)


def test_a_sweep_lets_go_of_its_clock_after_the_usual_tail_and_takes_it_up_again() -> None:
    player = conductor(tail_s=0.1, usual_tail_s=0.2, control_time_s=4.0)
    player.set_plan(sweep())
    assert run(player, 10)[-1] == Wish(900, DEFAULT, sum(DURATIONS) + 0.2 + 1.0 + LAG_S)
    assert at(player, 11) == Wish(900, measure=True)
    at(player, 12)
    assert run(player, 12)[-1] is None, "default clocks are held already"


def test_a_short_tail_before_a_control_block_runs_at_default_clocks() -> None:
    spec = plan(blocks=Blocks(iterations=3, pairs=8))
    last = next(i for i in range(10, 40) if arm_of(spec, i)[0] is Arm.PLAN and arm_of(spec, i + 1)[0] is Arm.CONTROL)
    player = conductor(tail_s=LAG_S)
    player.set_plan(spec)
    assert run(player, last)[-2] == Wish(DEFAULT)
    assert at(player, last + 1) == Wish(DEFAULT)
    assert player.state is RankState.ENFORCING


def test_a_plan_of_default_clocks_only_is_observed_without_a_wish_at_its_instructions() -> None:
    stages = (StagePlan(stage=0, order=ORDER, clocks_mhz=(0, 0, 0, 0), durations_s=DURATIONS),)
    player = conductor()
    player.set_plan(plan(stages=stages))
    assert player.staged_hash == "one"
    wishes = run(player, 10)
    assert wishes[0] == Wish(DEFAULT)
    assert not any(wishes[1:])
    assert (player.applied.arm, player.applied_hash) == (Arm.PLAN, "one")


def test_nothing_is_wished_before_the_plan_is_active() -> None:
    player = conductor()
    player.set_plan(plan())
    assert {w for w in run(player, 9) if w} == {Wish(DEFAULT)}
    assert player.state is RankState.STAGED
    assert (player.staged_hash, player.staged_at_iteration, player.applied_hash) == ("one", 0, None)


def test_a_sweep_holds_one_clock_from_the_begin_of_each_block_and_ends_at_default_clocks() -> None:
    player = conductor()
    player.set_plan(sweep())
    assert [at(player, i) for i in range(9, 17)] == [
        Wish(DEFAULT),
        *[Wish(900, measure=True)] * 2,
        *[Wish(DEFAULT, measure=True)] * 2,
        *[Wish(600, measure=True)] * 2,
        Wish(DEFAULT),
    ]
    assert player.applied.arm is Arm.DEFAULT


def test_two_clocks_of_a_sweep_take_turns_with_each_end_and_each_iteration_begins_with_the_other() -> None:
    player = conductor()
    player.set_plan(sweep(sweep=Sweep((900, 885, 900), iterations_per_block=2, to_and_fro_mhz=(885, 885, 900))))
    turns: list[list[Wish | None]] = []
    for iteration in range(10, 16):
        turns.append(run(player, iteration))
        assert (player.state, player.applied.arm) == (RankState.SWEEPING, Arm.SWEEP)
        assert player.applied.clock_mhz == {10: None, 11: None, 12: 885, 13: 885, 14: 900, 15: 900}[iteration]
    other = {900: 885, 885: 900}
    for first, wishes in ((900, turns[0]), (885, turns[1])):
        ends = [Wish(other[first]), Wish(first)] * 2
        assert wishes == [Wish(first), None, ends[0], None, ends[1], None, ends[2], None, ends[3], None]
    assert turns[2] == turns[3] == [Wish(885, measure=True)] + [None] * 9
    assert turns[4] == turns[5] == [Wish(900, measure=True)] + [None] * 9


def test_clocks_that_take_turns_are_let_go_of_after_the_usual_tail() -> None:
    player = conductor(tail_s=0.1, usual_tail_s=0.2, control_time_s=2.0)
    player.set_plan(sweep(sweep=Sweep((900,), iterations_per_block=2, to_and_fro_mhz=(885,))))
    assert run(player, 10)[-1] == Wish(900, DEFAULT, sum(DURATIONS) + 0.2 + 0.5 + LAG_S)


def test_a_plan_that_is_first_seen_after_its_begin_is_joined_at_the_next_block() -> None:
    spec = sweep(sweep=Sweep(clocks_mhz=(900, 600), iterations_per_block=5))
    player = conductor()
    at(player, 12)
    player.set_plan(spec)
    wishes = [at(player, i) for i in range(13, 16)]
    assert wishes == [Wish(DEFAULT), Wish(DEFAULT), Wish(600, measure=True)]


def test_an_activation_that_arrives_late_is_joined_at_the_next_block() -> None:
    player = conductor()
    player.set_plan(plan(activate_at=None, blocks=Blocks(iterations=4, pairs=0)))
    at(player, 11)
    assert player.staged_hash == "one"
    player.set_plan(plan(blocks=Blocks(iterations=4, pairs=0)))
    assert [at(player, i) for i in (12, 13, 14)] == [Wish(DEFAULT), Wish(DEFAULT), Wish(900)]


def test_another_attempt_stays_at_default_clocks() -> None:
    player = conductor(attempt=1)
    assert player.set_plan(plan()) == Wish(DEFAULT)
    assert at(player, 10) == Wish(DEFAULT)
    assert player.staged_hash is None
    assert player.reason.startswith("AttemptMismatch")


def test_a_withdrawn_plan_means_default_clocks_at_once() -> None:
    player = conductor()
    player.set_plan(plan())
    at(player, 10)
    assert player.set_plan(None) == Wish(DEFAULT)
    assert player.on_event(MarkerEntry(1, 10, MarkerEvent.BEGIN, "F", 0, 0), 0.0) is None
    assert (player.state, player.applied_hash) == (RankState.OBSERVING, None)


def test_a_plan_that_is_withheld_is_not_played_and_the_reason_goes_with_it() -> None:
    player = conductor()
    player.set_plan(plan())
    at(player, 10)
    assert player.withhold(Reason(Obstacle.HASH_MISMATCH, "x")) == Wish(DEFAULT)
    assert at(player, 11) == Wish(DEFAULT)
    assert (player.reason, player.state, player.staged_hash) == ("HashMismatch: x", RankState.OBSERVING, None)
    player.set_plan(None)
    assert player.reason == ""
    player.withhold(Reason(Obstacle.HASH_MISMATCH, "x"))
    player.set_plan(plan())
    assert (player.reason, player.staged_hash) == ("", "one")


def test_a_changed_plan_means_default_clocks_until_it_is_active_itself() -> None:
    player = conductor()
    player.set_plan(plan())
    at(player, 10)
    assert player.set_plan(plan(hash="two", activate_at=None)) == Wish(DEFAULT)
    assert at(player, 11) == Wish(DEFAULT)
    assert player.staged_hash == "two"


def test_an_unexpected_instruction_refuses_the_plan_for_good() -> None:
    player = conductor()
    player.set_plan(plan())
    run(player, 10, order=("F1", "F0", "B0", "B1"))
    assert player.state is RankState.REFUSED
    assert player.reason.startswith("OrderMismatch")
    assert at(player, 11) == Wish(DEFAULT)
    player.set_plan(plan(activate_at=20))
    assert at(player, 20) == Wish(DEFAULT)
    assert player.state is RankState.REFUSED
    player.set_plan(plan(hash="two", activate_at=30))
    assert at(player, 30) == Wish(900)


def test_a_recorded_order_that_differs_from_the_plan_is_never_staged() -> None:
    player = conductor(order=(Instruction(0, "F", 0), Instruction(0, "B", 0)))
    player.set_plan(plan())
    assert player.staged_hash is None
    assert player.reason.startswith("OrderMismatch")


def test_a_rank_of_two_stages_waits_for_its_recorded_order() -> None:
    first = StagePlan(stage=0, order=("F0", "B0"), clocks_mhz=(900, 600), durations_s=(1, 1))
    second = StagePlan(stage=1, order=("F0", "B0"), clocks_mhz=(1200, 750), durations_s=(1, 1))
    spec = plan(stages=(first, second))
    player = conductor(stages=(0, 1))
    player.set_plan(spec)
    assert (player.staged_hash, player.reason.partition(":")[0]) == (None, "OrderUnknown")
    player.order = (Instruction(0, "F", 0), Instruction(1, "F", 0), Instruction(1, "B", 0), Instruction(0, "B", 0))
    player.restage()
    assert player.staged_hash == "one"
    at(player, 10)
    player.on_event(MarkerEntry(1, 10, MarkerEvent.BEGIN, "F", 0, 0), 0.0)
    assert player.on_event(MarkerEntry(1, 10, MarkerEvent.END, "F", 0, 0), 0.0) == Wish(1200)


def test_a_plan_without_this_stage_is_never_staged() -> None:
    player = conductor(stages=(3,))
    player.set_plan(plan())
    assert player.staged_hash is None
    assert player.reason.startswith("StageMissing")


def test_clocks_at_or_over_the_default_clock_are_default_clocks() -> None:
    stage = StagePlan(stage=0, order=ORDER, clocks_mhz=(1410, 1410, 1410, 1410), durations_s=DURATIONS)
    player = conductor()
    player.set_plan(plan(stages=(stage,)))
    assert {w for w in run(player, 10) if w} == {Wish(DEFAULT)}


def iterate(player: Conductor, periods_s: list[float], first: int = 10) -> None:
    now = 0.0
    for number, period_s in enumerate([*periods_s, 0.0]):
        player.on_event(MarkerEntry(1, first + number, MarkerEvent.STEP_BEGIN, "", 0, 0), now)
        now += period_s


def test_a_plan_that_is_slower_than_promised_and_than_default_clocks_stays_refused() -> None:
    player = conductor()
    player.set_plan(plan(plan_iteration_time_s=1.0))
    iterate(player, [1.06] * 5)
    assert player.reason.startswith("GuardTripped")
    assert player.applied.arm is Arm.DEFAULT
    iterate(player, [1.06, *[1.0] * 5], first=15)
    assert player.reason.endswith("one more try"), "a slow spell may have ended just then"
    iterate(player, [1.0, *[1.06] * 6, *[1.0] * 5], first=21)
    assert player.reason.endswith("one more try"), "so may another one"
    iterate(player, [1.0, 1.0, *[1.06] * 6, *[1.0] * 5], first=33)
    assert player.state is RankState.REFUSED
    assert at(player, 47) == Wish(DEFAULT)


def test_a_job_that_is_slow_by_itself_gets_its_plan_back_after_a_pause_that_doubles() -> None:
    player = conductor()
    player.set_plan(plan(plan_iteration_time_s=1.0, blocks=Blocks(iterations=3, pairs=0)))
    iterate(player, [1.3] * 11)
    assert player.reason.startswith("SlowByItself")
    iterate(player, [1.3], first=21)
    assert player.applied.arm is Arm.DEFAULT
    iterate(player, [1.3] * 20, first=22)
    assert player.state is RankState.ENFORCING, "what default clocks took then is the new measure"


@pytest.mark.parametrize("held_up", [False, True])
def test_a_job_that_is_held_up_since_before_its_plan_begins_is_not_asked_about(held_up: bool) -> None:
    """By what default clocks take since the plan is staged, not by what they took when nobody was held up."""
    player = conductor(control_time_s=1.0)
    player.set_plan(plan(plan_iteration_time_s=1.2, allowed_slowdown=0.0, blocks=Blocks(iterations=6, pairs=0)))
    iterate(player, [1.2 if held_up else 1.0] * 4, first=6)
    iterate(player, [1.2] * 8)
    assert player.reason.startswith("GuardTripped") is not held_up


def test_the_guard_forgives_one_long_iteration_and_the_margin() -> None:
    player = conductor()
    player.set_plan(plan(plan_iteration_time_s=1.0))
    iterate(player, [1.04, 9.0, 1.04, 1.04, 9.0, 1.04, 1.04])
    assert player.state is RankState.ENFORCING


def test_the_guard_uses_the_measured_control_time_where_the_plan_has_no_time() -> None:
    player = conductor(control_time_s=1.0)
    player.set_plan(plan())
    iterate(player, [1.1] * 5)
    assert player.reason.startswith("GuardTripped")


clock_lists = st.lists(st.sampled_from([0, 600, 900, 1200, 1395, 1410]), min_size=1, max_size=12)


@given(clock_lists, st.floats(0, 2), st.data())
def test_no_instruction_begins_below_its_own_clock(clocks: list[int], lag_s: float, data: st.DataObject) -> None:
    """With a lag as predicted and durations as predicted, whatever the plan, where instructions outlast the lag."""
    order = tuple(f"F{i}" for i in range(len(clocks)))
    durations = tuple(data.draw(st.floats(lag_s + 0.01, lag_s + 5)) for _ in clocks)
    stage = StagePlan(stage=0, order=order, clocks_mhz=tuple(clocks), durations_s=durations)
    player = conductor(lags_up=UpLags(lag_s))
    player.set_plan(plan(stages=(stage,)))
    now = 0.0
    wishes: list[tuple[float, int]] = []
    begins: list[tuple[float, int]] = []
    for entry in entries(10, order):
        if entry.event is MarkerEvent.END:
            now += durations[entry.microbatch]
        wish = player.on_event(entry, now)
        if entry.event is MarkerEvent.BEGIN:
            begins.append((now, clocks[entry.microbatch]))
        if wish is not None:
            wishes = [(t, c) for t, c in wishes if t <= now] + [(now, wish.now_mhz)]
            if wish.later_mhz is not None:
                wishes.append((wish.later_at_s, wish.later_mhz))
    for begin_s, clock in begins[1:]:
        ordered = [c for t, c in wishes if t <= begin_s - lag_s + 1e-9]
        needed = DEFAULT if clock >= 1410 else clock
        assert height(ordered[-1]) >= height(needed)


@given(st.lists(st.tuples(st.sampled_from(MarkerEvent), st.sampled_from("FB"), st.integers(0, 3), st.integers(8, 13))))
def test_no_sequence_of_markers_breaks_it_or_lowers_a_clock_outside_of_the_plan(
    markers: list[tuple[MarkerEvent, str, int, int]],
) -> None:
    player = conductor()
    player.set_plan(plan())
    for event, kind, microbatch, iteration in markers:
        wish = player.on_event(MarkerEntry(1, iteration, event, kind, 0, microbatch), 0.0)
        if wish is not None and player.applied.arm is Arm.DEFAULT:
            assert wish == Wish(DEFAULT)
        if player.state is RankState.REFUSED:
            assert player.applied.arm is Arm.DEFAULT


@given(st.integers(0, 60), st.integers(1, 7), st.integers(0, 4))
def test_a_late_rank_is_in_the_same_arm_as_all_others_from_the_boundary_on(
    seen_at: int, length: int, pairs: int
) -> None:
    spec = plan(blocks=Blocks(iterations=max(3, length), pairs=pairs))
    player = conductor()
    at(player, seen_at)
    player.set_plan(spec)
    boundary = next_boundary(spec, seen_at)
    for iteration in range(seen_at + 1, seen_at + 30):
        at(player, iteration)
        expected = arm_of(spec, iteration)[0] if iteration >= boundary else Arm.DEFAULT
        assert player.applied.arm is expected


def test_default_clocks_are_the_highest() -> None:
    assert height(DEFAULT) == math.inf > height(1410) > height(900)
