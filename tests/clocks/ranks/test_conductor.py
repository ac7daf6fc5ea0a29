"""The conductor: which clock a rank wishes for, and when."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_clocks.gpus.lags import UpLags
from joulepath_clocks.gpus.lease import End
from joulepath_clocks.gpus.wish import DEFAULT, Wish, height
from joulepath_clocks.ranks.conductor import Conductor
from joulepath_clocks.ranks.reason import Obstacle, Reason
from joulepath_rules import (
    Arm,
    Blocks,
    Instruction,
    Length,
    Plan,
    Purpose,
    RankState,
    StagePlan,
    Sweep,
    arm_of,
    next_boundary,
)
from joulepath_trainer.wire.page import Ending, MarkerEntry, MarkerEvent

ORDER = ("F0", "F1", "B0", "B1")
CLOCKS = (900, 1200, 0, 600)
DURATIONS = (0.2, 0.3, 0.4, 0.5)
LAG_S = 0.05


def plan(**changes: object) -> Plan:
    """An Enforce plan in force from iteration 10 on, without blocks."""
    stages = (StagePlan(stage=0, order=ORDER, clocks_mhz=CLOCKS, durations_s=DURATIONS),)
    fields: dict[str, Any] = {
        "purpose": Purpose.ENFORCE,
        "hash": "one",
        "activate_at": 10,
        "stages": stages,
        "default_clock_mhz": 1410,
    }
    return Plan(**{**fields, **changes})


def sweep(**changes: object) -> Plan:
    """A sweep of three blocks of two iterations from iteration 10 on."""
    return plan(
        **{
            "purpose": Purpose.SWEEP,
            "stages": (),
            "sweep": Sweep(clocks_mhz=(900, 0, 600), iterations_per_block=2),
            **changes,
        }
    )


def conductor(**changes: object) -> Conductor:
    """A conductor of stage 0."""
    return Conductor(**{"attempt": 0, "stages": (0,), "lags_up": UpLags(LAG_S), **changes})  # type: ignore[arg-type]


def entries(iteration: int, order: tuple[str, ...] = ORDER) -> Iterator[MarkerEntry]:
    """The markers of an iteration."""
    yield MarkerEntry(1, iteration, MarkerEvent.STEP_BEGIN, "", 0, 0)
    for name in order:
        yield MarkerEntry(1, iteration, MarkerEvent.BEGIN, name[0], 0, int(name[1:]))
        yield MarkerEntry(1, iteration, MarkerEvent.END, name[0], 0, int(name[1:]))
    yield MarkerEntry(1, iteration, MarkerEvent.STEP_END, "", 0, 0)


def run(player: Conductor, iteration: int, at_s: float = 0.0, order: tuple[str, ...] = ORDER) -> list[Wish | None]:
    """One iteration with the planned durations, nothing in between."""
    wishes = []
    for entry in entries(iteration, order):
        if entry.event is MarkerEvent.END:
            at_s += DURATIONS[ORDER.index(f"{entry.kind}{entry.microbatch}")]
        wishes.append(player.on_event(entry, at_s))
    return wishes


def at(player: Conductor, iteration: int) -> Wish | None:
    """The wish at the begin of an iteration."""
    return player.on_event(next(entries(iteration)), float(iteration))


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


@pytest.mark.parametrize("made", [plan(), sweep()])
def test_a_step_that_ends_within_an_instruction_has_default_clocks_and_the_next_one_the_plans(made: Plan) -> None:
    """As where an evaluation begins in a job without a pipeline."""
    player = conductor()
    player.set_plan(made)
    begin, first, *_, end = entries(10)
    player.on_event(begin, 0.0)
    player.on_event(first, 0.0)
    before = player.applied
    assert player.on_event(end, 0.1) == Wish(DEFAULT)
    assert player.cut is before, "its block goes on without it"
    assert player.why is not None
    assert player.why.code is End.STEP_BROKEN_OFF
    wish = at(player, 11)
    assert wish is not None
    assert (wish.now_mhz, player.reason) == (900, "")


@pytest.mark.parametrize("ending", [*Ending, 9])
@pytest.mark.parametrize(
    ("made", "arm"),
    [(plan(), Arm.PLAN), (sweep(), Arm.SWEEP), (plan(blocks=Blocks(3, 8)), Arm.CONTROL), (None, Arm.DEFAULT)],
)
def test_a_step_is_cut_where_it_is_marked_to_end_in_any_way_but_whole(made: Plan | None, arm: Arm, ending: int) -> None:
    """9 is one that a trainer to come may know. Whole is what an older one says of each."""
    player = conductor()
    player.set_plan(made)
    number = 10 if made is None else next(i for i in range(10, 40) if arm_of(made, i)[0] is arm)
    run(player, number)
    before = player.applied
    assert before.arm is arm
    wish = player.on_event(MarkerEntry(1, number, MarkerEvent.STEP_END, "", 0, ending), sum(DURATIONS))
    if ending == Ending.WHOLE:
        assert (wish, player.cut, player.applied, player.length) == (None, None, before, Length.WHOLE)
        return
    assert player.length is (Length.OWN if ending == Ending.PARTED else Length.UNKNOWN)
    assert player.cut is before, "its block goes on without it"
    assert player.applied.arm is Arm.DEFAULT
    assert wish == (None if made is None else Wish(DEFAULT))
    if made is not None:
        assert player.why is not None
        assert player.why.code is (End.OTHER_WORK if ending == Ending.PARTED else End.STEP_BROKEN_OFF)
        assert player.reason == "", "no report is written for it"
    assert player.on_event(MarkerEntry(1, number, MarkerEvent.STEP_END, "", 0, Ending.BROKEN), 9.0) is None
    assert at(player, number + 1) is not None
    now = player
    assert (now.cut, now.applied, now.reason) == (None, before, "")


@pytest.mark.parametrize("made", [plan(), sweep()])
def test_what_runs_on_after_a_step_was_parted_has_default_clocks_until_the_next_one(made: Plan) -> None:
    """As where a loop evaluates in the midst of an iteration."""
    player = conductor()
    player.set_plan(made)
    begin, *instructions, end = entries(10)
    for entry in (begin, *instructions[:2]):
        player.on_event(entry, 0.0)
    assert player.on_event(end._replace(microbatch=Ending.PARTED), 0.0) == Wish(DEFAULT)
    assert not any(player.on_event(entry, 0.0) for entry in (*instructions[2:], end))
    assert player.cut is not None
    assert player.length is Length.UNKNOWN
    wish = at(player, 11)
    assert wish is not None
    assert wish.now_mhz == 900


@pytest.mark.parametrize("made", [plan(), sweep()])
def test_silence_between_two_iterations_lasts_until_the_next_one_and_within_one_until_the_next_block(
    made: Plan,
) -> None:
    reason = Reason(End.MARKERS_STOPPED, "none for 3 s")
    for count in (10, 3):
        player = conductor()
        player.set_plan(plan(blocks=Blocks(iterations=4, pairs=8)) if made.sweep is None else made)
        for entry in list(entries(10))[:count]:
            player.on_event(entry, 0.0)
        player.fall_silent(reason)
        assert (player.state, player.applied_hash) == (RankState.STAGED, None)
        at(player, 11)
        assert (player.applied_hash is None) == (count == 3)


def test_a_first_instruction_that_lasts_much_too_long_has_default_clocks() -> None:
    player = conductor()
    player.set_plan(plan(stages=(StagePlan(stage=0, order=ORDER, clocks_mhz=(900,) * 4, durations_s=DURATIONS),)))
    begin, first, *_ = entries(10)
    assert player.on_event(begin, 5.0) == Wish(900)
    assert player.on_event(first, 5.0) == Wish(900, DEFAULT, 5.0 + 2 * DURATIONS[0] + LAG_S)


def test_lost_markers_mean_default_clocks_until_the_next_iteration() -> None:
    player = conductor()
    player.set_plan(plan())
    at(player, 10)
    assert player.lost() == Wish(DEFAULT)
    assert player.on_event(MarkerEntry(1, 10, MarkerEvent.END, "B", 0, 0), 0.0) is None
    assert at(player, 11) == Wish(900)


def test_a_suspended_rank_joins_again_at_the_next_block() -> None:
    player = conductor()
    player.set_plan(plan(blocks=Blocks(iterations=4, pairs=0)))
    at(player, 11)
    assert player.stop(Reason(End.MARKERS_STOPPED, "x")) == Wish(DEFAULT)
    assert (player.state, player.applied_hash) == (RankState.STAGED, None), "perhaps no iteration begins any more"
    assert [at(player, i) for i in (12, 13, 14)] == [Wish(DEFAULT), Wish(DEFAULT), Wish(900)]
    assert player.reason == ""


def test_an_expired_plan_ends_with_its_iteration_and_is_joined_again_at_a_block() -> None:
    player = conductor()
    player.set_plan(plan(blocks=Blocks(iterations=4, pairs=0)))
    assert at(player, 10) == Wish(900)
    player.expired = "no news"
    assert player.on_event(MarkerEntry(1, 10, MarkerEvent.END, "F", 0, 0), 0.0) == Wish(1200), "not within an iteration"
    assert at(player, 11) == Wish(DEFAULT)
    assert (player.reason, player.state) == ("PlanExpired: no news", RankState.STAGED)
    assert (player.staged_hash, player.applied_hash, player.applied.arm) == ("one", None, Arm.DEFAULT)
    assert {at(player, i) for i in range(12, 16)} == {Wish(DEFAULT)}
    player.expired = ""
    assert [at(player, i) for i in (16, 17, 18)] == [Wish(DEFAULT), Wish(DEFAULT), Wish(900)]
    assert player.reason == ""


def test_a_plan_that_expires_before_its_begin_does_not_begin() -> None:
    player = conductor(expired="no news")
    player.set_plan(plan())
    assert {at(player, i) for i in range(9, 13)} == {Wish(DEFAULT)}
    assert player.reason == "PlanExpired: no news"


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
