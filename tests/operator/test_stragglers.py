"""A pipeline that is held up: the others are stretched, never beyond it, and as they were once that is over."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_crds import Arm, EnergyPlanSpec, EnergyPolicySpec, LeastClock, Phase, learnt_from
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.policy import breaks
from joulepath_operator.figures.stragglers import Announcement, AnnouncementError, read_announcement, told_by_ranks
from tests.operator.replicas import Replicas, Slow


@pytest.fixture(scope="module")
def once_replicated() -> Replicas:
    world = Replicas()
    world.settle()
    world.run(300)
    assert world.status.phase is Phase.ACTIVE
    return world


@pytest.fixture
def world(once_replicated: Replicas) -> Replicas:
    """Two replicas with a plan in force."""
    found = once_replicated.copy()
    assert isinstance(found, Replicas)
    found.notices.clear()
    return found


REPLICA: Slow = {1: dict.fromkeys(range(8), 1.2)}
RANK: Slow = {1: {3: 1.2}}


@pytest.mark.parametrize(
    ("announcement", "held", "default_replicas"),
    [('{"replica": 1, "slowdown": 1.2}', REPLICA, ()), ('{"rank": 11, "slowdown": 1.2}', RANK, (1,))],
    ids=["a whole replica", "one rank"],
)
def test_beside_a_straggler_the_others_take_as_long_and_no_longer(
    world: Any, announcement: str, held: Slow, default_replicas: tuple[int, ...]
) -> None:
    before, saved = world.plan.hash, world.status.measured.savings.mean
    world.held = held
    world.announce(announcement)
    world.settle()
    plan, told = world.plan, world.status.straggler
    assert plan.hash == told.hash == world.status.plan.hash != before
    assert plan.stretched.replicas == (0,)
    assert plan.stretched.default_replicas == default_replicas
    assert plan.stretched.control_iteration_time_s == pytest.approx(world.time_s(Arm.CONTROL), rel=0.005)
    assert [one.reason for one in world.notices] == ["StragglerFound"]
    world.run(120)
    measured = world.status.measured
    assert world.status.phase is Phase.ACTIVE
    assert measured.slowdown.mean < 0.002, "no longer than the straggler takes at default clocks"
    assert measured.savings.mean == pytest.approx(told.predicted_savings, abs=0.01)
    assert told.predicted_savings > told.predicted_unstretched + 0.01
    assert world.status.predicted == f"{told.predicted_savings:.1%}"
    if not default_replicas:
        assert measured.savings.mean > saved + 0.03
    assert "stretched to" in world.status.message


@pytest.mark.parametrize("way", ["taken back", "over", "ignored"])
def test_once_it_is_over_the_plan_is_as_it_was(world: Any, way: str) -> None:
    before = world.plan
    world.announce('{"rank": 11, "slowdown": 1.2, "until": "2026-01-01T00:08:00Z"}')
    world.held = RANK
    decision = world.settle()
    assert decision.requeue_after_s is not None
    assert world.plan.stretched is not None
    world.held = {}
    if way == "taken back":
        world.announce(None)
        world.settle()
    elif way == "over":
        world.settle_later()
    else:
        world.spec = EnergyPlanSpec.from_api({"job": {"name": "gpt3"}, "stragglers": "Ignore"})
        world.settle()
    plan = world.plan
    assert plan.hash == before.hash
    assert plan.stretched is None
    assert world.status.straggler is None
    assert plan.activate_at is not None, "all have it at once, so that it has a begin"
    assert plan.activate_at > world.iteration
    world.run(60)
    assert world.status.phase is Phase.ACTIVE
    assert world.status.predicted == f"{world.status.plan.predicted_savings:.1%}"
    assert world.plans_computed == 1


def test_what_is_announced_wrongly_is_believed_no_more(world: Any) -> None:
    before = world.plan.hash
    world.announce('{"replica": 1, "slowdown": 1.3}')
    world.settle()
    assert world.plan.stretched is not None, "nothing is slow, but who would know"
    world.run(20)
    world.refusal = {3: "GuardTripped: plan iterations took 3.7 s, then 5 at default clocks 2.8 s, 3 times in a row"}
    world.settle()
    assert world.plan.hash == before
    assert world.status.straggler.disproved
    assert "GuardTripped" in world.status.straggler.message
    world.run(4)
    assert world.status.phase is not Phase.REFUSED, "what is still told is of the plan before"
    world.refusal = {}
    world.run(300)
    assert world.plan.hash == before
    assert world.status.phase is Phase.ACTIVE
    assert [one.reason for one in world.notices] == ["StragglerFound", "StragglerDisproved"]
    world.announce('{"replica": 1, "slowdown": 1.1}')
    world.settle()
    assert world.plan.stretched is not None, "another word"


def test_what_a_rank_refuses_of_the_plan_before_as_well_is_a_refusal(world: Any) -> None:
    world.announce('{"replica": 1, "slowdown": 1.2}')
    world.settle()
    world.refusal = {3: "GpuRefused: it is in MIG mode"}
    world.settle()
    assert world.status.phase is Phase.REFUSED
    assert world.plan is None
    assert world.status.straggler is None


def test_it_is_disproved_also_by_an_operator_that_knows_nothing_of_it(world: Any) -> None:
    before = world.plan.hash
    world.announce('{"replica": 1, "slowdown": 1.3}')
    world.settle()
    world.run(8)
    world.status = world.status.model_copy(update={"straggler": None})
    world.refusal = {3: "GuardTripped: it is slower"}
    world.settle()
    assert world.plan.hash == before
    assert world.status.straggler.disproved


def test_the_operators_own_figures_disprove_it_as_well(world: Any) -> None:
    before = world.plan.hash
    world.announce('{"replica": 1, "slowdown": 1.3}')
    world.settle()
    world.run(120)
    assert world.plan.hash == before
    assert world.status.straggler.disproved
    assert world.status.withdrawn == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("soon", "no JSON"),
        ('{"rank": 99, "slowdown": 1.2}', "rank is 99"),
        ('{"rank": 3, "slowdown": 0.8}', "slowdown is 0.8"),
        ('{"rank": 3, "slowdown": 1.2, "until": "tomorrow"}', "until is 'tomorrow'"),
    ],
)
def test_what_cannot_be_followed_is_told_once_with_the_remedy(world: Any, text: str, named: str) -> None:
    before = world.plan
    world.announce(text)
    world.settle()
    world.run(8)
    assert world.plan == before
    condition = world.condition("Degraded")
    assert (condition.status, condition.reason) == ("True", "StragglerUnreadable")
    assert named in condition.message
    assert "joulepath.dev/straggler" in condition.message
    assert "remove it" in condition.message
    assert [one.reason for one in world.notices] == ["StragglerUnreadable"]
    world.announce(None)
    world.settle()
    assert world.condition("Degraded").status == "False"


def test_it_is_over_in_the_second_that_is_told_and_the_next_look_is_never_at_once() -> None:
    found = read('{"rank": 3, "slowdown": 1.2, "until": "2026-01-31T18:00:00.9Z"}')
    assert isinstance(found, Announcement)
    assert found.until == datetime(2026, 1, 31, 18, tzinfo=UTC)


def test_a_milder_one_is_not_waited_for_as_the_one_before(world: Any) -> None:
    world.announce('{"replica": 1, "slowdown": 1.2}')
    world.settle()
    first = world.plan.stretched
    written = len(world.writes)
    world.announce('{"replica": 1, "slowdown": 1.1}')
    world.settle()
    assert world.writes[written].stretched is None, "back at once, and then anew"
    assert world.plan.stretched.plan_iteration_time_s < first.plan_iteration_time_s - 0.1
    written = len(world.writes)
    world.announce('{"replica": 1, "slowdown": 1.3}')
    world.settle()
    assert all(plan.stretched is not None for plan in world.writes[written:]), "a slower one may be waited for so long"


def test_what_others_have_waited_for_since_long_is_no_tail_to_plan_with(world: Any) -> None:
    world.waits, world.held = {0: 0.45}, REPLICA
    world.announce('{"replica": 1, "slowdown": 1.2}')
    world.settle()
    assert world.plan.stretched is not None
    assert world.plan.stretched.plan_iteration_time_s == pytest.approx(world.time_s(Arm.CONTROL), rel=0.005)


def test_of_many_pipelines_one_that_tells_no_timeline_is_waited_for_as_well() -> None:
    """Of seven, five tell theirs, and the slow one is another: what the others have waited for it is no tail either."""
    world: Any = Replicas(replicas=7)
    world.settle()
    world.run(300)
    assert world.status.phase is Phase.ACTIVE
    assert 2 not in {data for data, _ in learnt_from(7, 1)}
    world.held = {2: REPLICA[1]}
    world.waits = dict.fromkeys({*range(7)} - {2}, 0.45)
    world.told = dict.fromkeys(range(16, 24), 1.2)
    world.settle()
    assert world.plan.stretched.replicas == (0, 1, 3, 4, 5, 6)
    assert world.plan.stretched.plan_iteration_time_s == pytest.approx(world.time_s(Arm.CONTROL), rel=0.005)


def test_stretched_clocks_are_held_to_the_least_clock_like_any(world: Any) -> None:
    world.announce('{"replica": 1, "slowdown": 1.2}')
    world.settle()
    least = LeastClock(gpu_model="*", clock_mhz=600)
    policy, gpus = EnergyPolicySpec(min_clocks=(least,)), world.nodes()[0].gpus
    assert not breaks(policy, world.plan, gpus)
    first, *others = world.plan.stretched.stages
    lower = first.model_copy(update={"clocks_mhz": (585, *first.clocks_mhz[1:])})
    stretched = world.plan.stretched.model_copy(update={"stages": (lower, *others)})
    assert breaks(policy, world.plan.model_copy(update={"stretched": stretched}), gpus)


def test_a_plan_for_one_that_is_over_goes_while_ranks_are_missing(world: Any) -> None:
    world.announce('{"replica": 1, "slowdown": 1.2}')
    world.settle()
    assert world.plan.stretched is not None
    world.ranks = 7
    world.settle()
    assert world.plan is not None
    world.announce(None)
    world.settle()
    assert world.plan is None


@pytest.mark.parametrize("slowdown", [1.001, 1.0000000001])
def test_what_is_not_worth_it_changes_nothing(world: Any, slowdown: float) -> None:
    before = world.plan
    world.announce(json.dumps({"replica": 1, "slowdown": slowdown}))
    world.settle()
    assert world.plan == before
    assert "Nothing worth" in world.status.straggler.message
    assert world.status.straggler.hash is None


def test_the_planner_is_not_asked_in_turns_for_a_straggler_and_the_frontier(world: Any) -> None:
    world.status = world.status.model_copy(update={"frontier": ()})
    world.announce('{"replica": 1, "slowdown": 1.001}')
    decision, asked = world.decide(), list[Any]()
    while (question := decision.ask_planner) is not None and len(asked) < 5:
        asked.append(question)
        world._carry_out(decision)
        decision = world.decide(question, world.answer(question))
    assert len(asked) == 1
    assert "Nothing worth" in decision.status.straggler.message
    world.announce(None)
    world.settle()
    assert world.status.frontier, "asked for once it is over"


def test_of_ranks_that_were_found_wrongly_no_others_are_believed_either(world: Any) -> None:
    before = world.plan.hash
    world.told = {9: 1.3}
    world.settle()
    world.run(120)
    assert world.plan.hash == before
    assert world.status.straggler.disproved
    written = len(world.writes)
    world.told = {3: 1.3}
    world.settle()
    assert world.plan.hash == before
    assert len(world.writes) == written


def test_what_ranks_tell_is_followed_at_once_and_over_at_once(world: Any) -> None:
    before = world.plan.hash
    world.held = REPLICA
    world.told = dict.fromkeys(range(8, 16), 1.2)
    world.settle()
    told = world.status.straggler
    assert world.plan.stretched.replicas == (0,)
    assert (told.reason, told.replicas, told.slowdown) == ("Heat", (1,), 1.2)
    assert "replica 1" in told.message
    assert "by heat (8 ranks are slower)" in told.message
    world.run(120)
    assert world.status.measured.slowdown.mean < 0.002
    assert world.status.measured.savings.mean == pytest.approx(told.predicted_savings, abs=0.01)
    written = len(world.writes)
    world.held, world.told = {}, {}
    world.settle()
    assert world.writes[written].hash == before
    assert world.status.straggler is None
    assert [one.reason for one in world.notices] == ["StragglerFound", "StragglerOver"]


def test_a_pipeline_that_is_slower_as_a_whole_is_so_by_one_factor(world: Any) -> None:
    world.told = {rank: 1.2 + 0.01 * (rank % 3) for rank in range(8, 16)}
    gang = Gang.of(world.nodes())
    assert gang is not None
    assert told_by_ranks(gang) == {1: dict.fromkeys(range(8), 1.2)}
    world.settle()
    assert world.plan.stretched.default_replicas == ()
    world.told[9] = 1.0
    gang = Gang.of(world.nodes())
    assert gang is not None
    assert len(set(told_by_ranks(gang)[1].values())) > 1


@pytest.mark.parametrize("told", [dict.fromkeys(range(16), 1.2), dict.fromkeys(range(8, 16), 1.02), {}])
def test_where_all_are_slower_or_hardly_nobody_is_a_straggler(world: Any, told: dict[int, float]) -> None:
    before = world.plan
    world.told = told
    world.settle()
    assert world.plan == before
    assert world.status.straggler is None


def test_what_is_announced_goes_before_what_is_found(world: Any) -> None:
    world.told = {9: 1.4}
    world.announce('{"replica": 1, "slowdown": 1.1}')
    world.settle()
    assert (world.status.straggler.reason, world.status.straggler.slowdown) == ("Announced", 1.1)


def test_what_was_found_wrongly_is_followed_again_only_after_it_was_over(world: Any) -> None:
    before = world.plan.hash
    world.told = dict.fromkeys(range(8, 16), 1.3)
    world.settle()
    world.run(120)
    assert world.plan.hash == before
    assert world.status.straggler.disproved
    world.told = dict.fromkeys(range(8, 16), 1.26)
    world.settle()
    assert world.plan.hash == before, "a little less of the same"
    world.told = {}
    world.settle()
    world.told = dict.fromkeys(range(8, 16), 1.26)
    world.settle()
    assert world.plan.hash == before, "not at once any more"
    world.run(15)
    assert world.plan.stretched is not None


def test_one_that_comes_and_goes_is_answered_ever_later(world: Any) -> None:
    answered_after = []
    for _ in range(4):
        world.told, begun = dict.fromkeys(range(8, 16), 1.2), world.iteration
        world.settle()
        while world.plan.stretched is None:
            assert "lasted for a while" in world.status.straggler.message
            world.run(1)
        answered_after.append(world.iteration - begun)
        world.told = {}
        world.settle()
        assert world.plan.stretched is None
    assert answered_after[0] == 0
    for before, after in pairwise((10, *answered_after[1:])):
        assert after >= before
    assert answered_after[-1] >= 40
    world.announce('{"replica": 1, "slowdown": 1.2}')
    world.settle()
    assert world.plan.stretched is not None, "what is announced is no guess"


@given(st.lists(st.floats(1, 10), min_size=16, max_size=16))
def test_factors_are_never_more_than_ranks_tell_nor_of_more_than_three_quarters(told: list[float]) -> None:
    world = Replicas()
    world.told = dict(enumerate(told))
    gang = Gang.of(world.nodes())
    assert gang is not None
    factors = told_by_ranks(gang)
    slow = [(data, stage) for data, stages in factors.items() for stage in stages]
    assert len(slow) <= 12
    for data, stage in slow:
        assert 1.02 < factors[data][stage] <= told[8 * data + stage]


def read(text: str) -> Announcement | str:
    """It, or why it can't be read."""
    try:
        return read_announcement(text)
    except AnnouncementError as error:
        return str(error)


@given(st.text() | st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists).map(str))
def test_whatever_is_written_is_read_or_told(text: str) -> None:
    found = read(text)
    assert isinstance(found, Announcement) or "Write it as" in found


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "rank": st.integers() | st.text(max_size=3) | st.booleans(),
            "replica": st.integers(),
            "slowdown": st.floats() | st.integers() | st.none(),
            "until": st.datetimes().map(str) | st.integers() | st.text(max_size=30),
        },
    )
)
def test_whatever_its_fields_hold_is_read_or_told(body: dict[str, Any]) -> None:
    found = read(json.dumps(body))
    if isinstance(found, str):
        assert "joulepath.dev/straggler" in found
    else:
        assert 1 < found.slowdown <= 10
        assert (found.rank is None) != (found.replica is None)


def test_alone_nobody_is_stretched(active: Any) -> None:
    active.job = replace(active.job, straggler='{"replica": 0, "slowdown": 1.2}')
    before = active.plan
    active.settle()
    assert active.plan == before
    assert "all of its pipelines are" in active.status.straggler.message
