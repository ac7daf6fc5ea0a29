"""What ends or interrupts the arm of a rank: broken iterations, silence, lost markers, plans that expire."""

from __future__ import annotations

import pytest

from joulepath_clocks.gpus.lease import End
from joulepath_clocks.gpus.wish import DEFAULT, Wish
from joulepath_clocks.ranks.reason import Reason
from joulepath_rules import (
    Arm,
    Blocks,
    Length,
    Plan,
    RankState,
    StagePlan,
    arm_of,
)
from joulepath_trainer.wire.page import Ending, MarkerEntry, MarkerEvent
from tests.clocks.ranks.conducting import DURATIONS, LAG_S, ORDER, at, conductor, entries, plan, run, sweep


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
