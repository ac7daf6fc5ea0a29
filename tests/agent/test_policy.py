"""Whatever plan and policy are: nothing is played while paused, and no clock below the least one."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_agent.policy import under
from joulepath_clocks.gpus.lags import UpLags
from joulepath_clocks.gpus.wish import DEFAULT
from joulepath_clocks.ranks.conductor import Conductor
from joulepath_clocks.ranks.reason import Obstacle, Reason
from joulepath_crds import EnergyPolicySpec, LeastClock, Namespaces, RankState
from joulepath_rules import Blocks, Plan, Purpose, StagePlan, Sweep
from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent
from tests.agent.room import Room, wait_until
from tests.agent.test_agent import LOW_MHZ, held, plan

MODEL = "NVIDIA A100"
ORDER = ("F0", "B0")
MakeRoom = Callable[..., Room]

clocks = st.sampled_from([0, 300, 900, 1000, 1200, 1410])
policies = st.builds(
    EnergyPolicySpec,
    paused=st.booleans(),
    max_slowdown_percent=st.none() | st.floats(0, 50),
    min_clocks=st.dictionaries(st.sampled_from([MODEL, "*", "H100"]), st.integers(1, 2000)).map(
        lambda known: tuple(LeastClock(gpu_model=model, clock_mhz=clock) for model, clock in known.items())
    ),
    namespaces=st.none() | st.builds(Namespaces, names=st.lists(st.sampled_from("ab"), min_size=1).map(tuple)),
)
plans = st.builds(
    lambda mhz, slowdown: Plan(
        hash=f"{mhz}",
        purpose=Purpose.ENFORCE,
        default_clock_mhz=1410,
        activate_at=0,
        blocks=Blocks(3, 2),
        stages=(StagePlan(0, ORDER, mhz, (0.1, 0.1)),),
        allowed_slowdown=slowdown,
    ),
    st.tuples(clocks, clocks),
    st.none() | st.floats(0, 0.5),
) | st.builds(
    lambda mhz: Plan(
        hash=f"sweep {mhz}", purpose=Purpose.SWEEP, default_clock_mhz=1410, activate_at=0, sweep=Sweep(tuple(mhz), 2)
    ),
    st.lists(clocks, min_size=1, max_size=4),
)


@given(st.lists(st.tuples(policies, plans, st.sampled_from(["", MODEL, "T4"])), max_size=6))
def test_no_clock_is_wished_while_paused_nor_below_the_least_one(
    history: list[tuple[EnergyPolicySpec, Plan, str]],
) -> None:
    """Through the real conductor, which is told what is left of plan after plan, and plays on between."""
    conductor = Conductor(0, (0,), UpLags())
    iteration = 0
    for policy, one, model in history:
        left = under(policy, "a", model, one)
        wish = conductor.withhold(left) if isinstance(left, Reason) else conductor.set_plan(left)
        wishes = [] if wish is None else [wish]
        for _ in range(7):
            iteration += 1
            for at, event in enumerate(_iteration(iteration)):
                heard = conductor.on_event(event, iteration + at / 10)
                wishes += [] if heard is None else [heard]
        ordered = {mhz for wish in wishes for mhz in (wish.now_mhz, wish.later_mhz) if mhz}
        if policy.paused or (policy.namespaces and "a" not in policy.namespaces.names):
            assert not ordered
            assert conductor.staged_hash is None
        assert all(mhz >= policy.least_clock_mhz(model) for mhz in ordered)


def _iteration(number: int) -> list[MarkerEntry]:
    events = [MarkerEntry(0, number, MarkerEvent.STEP_BEGIN, "", 0, 0)]
    for kind in "FB":
        events += [MarkerEntry(0, number, event, kind, 0, 0) for event in (MarkerEvent.BEGIN, MarkerEvent.END)]
    return [*events, MarkerEntry(0, number, MarkerEvent.STEP_END, "", 0, 0)]


@given(policies, plans)
def test_what_may_be_played_is_the_plan_itself_but_for_the_slowdown_that_guards_allow(
    policy: EnergyPolicySpec, one: Plan
) -> None:
    left = under(policy, "a", MODEL, one)
    if isinstance(left, Plan):
        assert replace(left, allowed_slowdown=one.allowed_slowdown) == one
        if policy.max_slowdown_percent is not None:
            assert left.allowed_slowdown is not None
            assert left.allowed_slowdown <= min(policy.max_slowdown_percent / 100, one.allowed_slowdown or 0.5)


def test_where_labels_let_namespaces_in_an_agent_bars_none() -> None:
    one = Plan(hash="one", purpose=Purpose.SWEEP, default_clock_mhz=1410, sweep=Sweep((900,), 2))
    barring = EnergyPolicySpec(namespaces=Namespaces(names=("b",)))
    assert isinstance(left := under(barring, "a", MODEL, one), Reason)
    assert left.code is Obstacle.NOT_ALLOWED
    assert "doesn't name namespace a in spec.namespaces" in left.message
    labelled = EnergyPolicySpec(namespaces=Namespaces(names=("b",), match_labels={"team": "x"}))
    assert under(labelled, "a", MODEL, one) == one


def test_clocks_that_take_turns_in_a_sweep_are_both_held_to_the_least_one() -> None:
    policy = EnergyPolicySpec(min_clocks=(LeastClock(gpu_model=MODEL, clock_mhz=900),))
    for mhz, allowed in ((900, True), (885, False)):
        one = Plan("one", Purpose.SWEEP, 1410, sweep=Sweep((900,), 2, (mhz,)))
        assert isinstance(under(policy, "a", MODEL, one), Plan) is allowed


def test_a_plan_of_an_older_operator_asks_for_what_its_times_tell() -> None:
    stage = StagePlan(0, ORDER, (900, 0), (0.1, 0.1))
    old = Plan("one", Purpose.ENFORCE, 1410, stages=(stage,), control_iteration_time_s=1, plan_iteration_time_s=1.25)
    for most, allowed in ((50, 0.25), (10, 0.1)):
        left = under(EnergyPolicySpec(max_slowdown_percent=most), "a", MODEL, old)
        assert isinstance(left, Plan)
        assert left.allowed_slowdown == pytest.approx(allowed)


def test_a_pause_resets_a_clock_that_is_locked_and_its_end_lets_the_plan_join_again(room: MakeRoom) -> None:
    made = room(time_scale=0.1)
    agent = made.agent()
    made.peer(iterations=100_000)
    agent.plans(held())
    wait_until(lambda: made.clock() == LOW_MHZ, "the clock is locked")
    agent.policy(paused=True, pauseReason="the grid")

    def told() -> bool:
        rank = agent.rank()
        return rank is not None and rank.reason == "Paused: EnergyPolicy default pauses all plans: the grid"

    wait_until(lambda: made.clock() == DEFAULT and told(), "it is at default clocks, and says why")
    assert agent.report().policy == "Paused"
    before = made.gpus.look(0).kernels
    wait_until(lambda: made.gpus.look(0).kernels > before, "the training goes on")
    agent.plans(held("another", activate_at=0))
    rank = agent.rank()
    assert rank is not None
    assert rank.staged_hash is None
    agent.policy()
    wait_until(lambda: made.clock() == LOW_MHZ, "the clock is locked again")
    assert agent.report().policy == "Heard"


def test_a_node_whose_clocks_could_begin_a_plan_yet_does_not_say_that_it_rests(room: MakeRoom) -> None:
    made = room(time_scale=0.1)
    agent = made.agent()
    made.peer(iterations=100_000)
    agent.plans(held(activate_at=None))
    wait_until(lambda: (rank := agent.rank()) is not None and rank.staged_hash == "held", "the plan is staged")
    agent.clocks.send(signal.SIGSTOP)
    agent.policy(paused=True)
    assert agent.report().policy == "Pausing"
    agent.clocks.send(signal.SIGCONT)
    wait_until(lambda: agent.report().policy == "Paused", "the clocks have heard")


def test_a_plan_below_the_least_clock_is_not_played_and_one_above_is(room: MakeRoom) -> None:
    made = room(time_scale=0.1)
    agent = made.agent()
    made.peer(iterations=100_000)
    agent.policy(minClocks=[{"gpuModel": "*", "clockMHz": LOW_MHZ + 1}])
    agent.plans(held())

    def refused() -> bool:
        rank = agent.rank()
        return rank is not None and rank.reason.startswith(f"BelowMinClock: the plan has {LOW_MHZ} MHz")

    wait_until(refused, "it is told why")
    agent.policy(minClocks=[{"gpuModel": "*", "clockMHz": LOW_MHZ}])
    wait_until(lambda: made.clock() == LOW_MHZ, "the clock is locked")
    agent.plans(plan())
    rank = agent.rank()
    assert rank is not None
    assert rank.state is not RankState.REFUSED


def test_no_plan_is_told_before_there_is_word_of_the_policy_and_a_pause_is_without_any(room: MakeRoom) -> None:
    made = room(time_scale=0.1)
    agent = made.agent()
    made.peer(iterations=100_000)
    wait_until(lambda: agent.rank() is not None, "the rank is there")
    agent.say({"plans": [held()], "unheard": True})
    assert agent.report().policy == "Unheard"
    rank = agent.rank()
    assert rank is not None
    assert rank.staged_hash is None
    agent.policy()
    wait_until(lambda: made.clock() == LOW_MHZ, "the clock is locked")
    agent.end()
    successor = made.agent_of(agent.clocks)
    wait_until(lambda: (r := successor.rank()) is not None and r.staged_hash == "held", "the clocks play on")
    successor.policy(paused=True)
    wait_until(lambda: made.clock() == DEFAULT, "the clock is reset by one who has heard of no plan yet")


def test_plans_expire_with_the_policy_of_which_there_is_no_news(room: MakeRoom) -> None:
    made = room(time_scale=0.1)
    agent = made.agent(None, 2, "--plans-live", "8")
    made.peer(iterations=100_000)
    agent.plans(held())
    wait_until(lambda: made.clock() == LOW_MHZ, "the clock is locked")

    def expired() -> bool:
        agent.say({"plans": [held()], "unheard": True})
        rank = agent.rank()
        return rank is not None and rank.reason.startswith("PlanExpired")

    wait_until(expired, "the plan expires while there is news of plans")
    assert made.clock() == DEFAULT
    agent.plans(held())
    wait_until(lambda: made.clock() == LOW_MHZ, "the plan is joined again")
