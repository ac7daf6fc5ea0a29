"""Raise early, lower late: the conductor and the planner's referee share the rule and no code. Here they are compared.

The referee replays a random plan of a random pipeline, and what it asks of its GPUs' clocks is noted. A conductor is
given the markers of the same iterations, at the referee's times, and what the clock setter would order is noted, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from unittest.mock import patch

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import joulepath_crds
import joulepath_planner.referee.replay
from joulepath_bridge.lags import lags_of
from joulepath_clocks.gpus.lags import Lags, UpLags, Way
from joulepath_clocks.gpus.wish import DEFAULT, Wish
from joulepath_clocks.ranks.conductor import OVERRUN, Conductor
from joulepath_operator.facts.lags import pooled
from joulepath_planner import (
    Event,
    LagTable,
    Pipeline,
    Point,
    Profile,
    Schedule,
    gpipe,
    interleaved_1f1b,
    one_f_one_b,
    recorded,
    simulate,
    zb_h1,
    zbv,
)
from joulepath_planner.referee.gpu_clock import GpuClock
from joulepath_planner.robustness import MARGIN
from joulepath_rules import Instruction, Plan, Purpose, StagePlan
from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent

CLOCKS_MHZ = (1410, 1200, 900, 600)
ITERATIONS = 3
"""Compared, of the iterations 1 to 3: the plan's first one, and those that repeat it unless something differs."""
SAME_S = 1e-7

Order = tuple[float, int]
"""When a clock was ordered, and which."""


@dataclass
class Case:
    """A pipeline, a plan for it, and how it comes out."""

    pipeline: Pipeline
    clocks: list[list[int]]
    lags: LagTable
    factors: dict[tuple[int, str, int, int], float] = field(repr=False)
    """How many times as long as predicted an instruction takes, by its name and iteration; 1 if it isn't in here."""
    seed: int

    @property
    def pace_s(self) -> float:
        """Longer than any iteration, so that iteration i begins at i times this."""
        slowest_s = sum(
            self.pipeline.profile.at(one.stage, one.kind, min(CLOCKS_MHZ))[0]
            for order in self.pipeline.schedule.orders
            for one in order
        )
        moved_s = sum(self.pipeline.transfer_s.values()) * sum(map(len, self.pipeline.schedule.orders))
        return 10 * (slowest_s + moved_s + sum(self.pipeline.tail_s.values()) + 1.0)


SCHEDULES = st.one_of(
    st.builds(one_f_one_b, st.integers(1, 4), st.integers(1, 5)),
    st.builds(gpipe, st.integers(1, 3), st.integers(1, 4)),
    st.builds(zb_h1, st.integers(1, 3), st.integers(1, 4)),
    st.builds(interleaved_1f1b, st.sampled_from((2, 4)), st.sampled_from((2, 4))),
    st.builds(zbv, st.sampled_from((2, 4)), st.integers(1, 4)),
    st.just(recorded(["F0 F1 F2&B0 F3&B1 B2 B3", "F0 F1&B0 F2&B1 F3&B2 B3"])),
    st.just(recorded(["F0 F1 1:F0 1:F1 F2&1:B0 1:F2&0:B0 1:B1 B1 1:B2 B2"])),
)


TARGETS = st.sampled_from(CLOCKS_MHZ)
ROWS = st.builds(
    lambda p95_s, up, down: LagTable(up * p95_s, down * p95_s, p95_s, p95_s),
    st.sampled_from((0.0, 0.01, 0.1, 0.5)),
    st.floats(0.1, 1.0),
    st.floats(0.1, 1.0),
)


@st.composite
def profiles(draw: st.DrawFn, schedule: Schedule) -> Profile:
    """A profile of each kind that the schedule runs, slower at lower clocks."""
    kinds = {(one.stage, one.kind) for order in schedule.orders for one in order}
    kinds |= {(stage, "B") for stage in range(schedule.stages)}
    points = {}
    for key in sorted(kinds):
        base_s, share = draw(st.floats(0.01, 0.5)), draw(st.floats(0.0, 1.0))
        points[key] = tuple(
            Point(clock, base_s * (1 - share + share * CLOCKS_MHZ[0] / clock), base_s * clock) for clock in CLOCKS_MHZ
        )
    return Profile(points, 80.0)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    schedule = draw(SCHEDULES)
    p95_s = draw(st.sampled_from((0.0, 0.005, 0.05, 0.2, 1.0)))
    median_s, lower_s = (p95_s * draw(st.floats(0.1, 1.0)) for _ in range(2))
    lags = LagTable(median_s, lower_s, p95_s, max(p95_s, lower_s), targets=draw(st.dictionaries(TARGETS, ROWS)))
    to_default_s = lags.of(CLOCKS_MHZ[0]).p95_up_s
    tails = st.sampled_from((None, 0.0, 0.5, 1.0, 3.9, 4.0, 4.1, 9.0))
    tail_lags = {stage: draw(tails) for stage in range(schedule.stages)}
    edges = [(stage, stage + 1, "F") for stage in range(schedule.stages - 1)]
    pipeline = Pipeline(
        schedule,
        draw(profiles(schedule)),
        transfer_s={edge: draw(st.floats(0.0, 0.1)) for edge in edges},
        tail_s={stage: count * (to_default_s or 0.05) for stage, count in tail_lags.items() if count is not None},
    )
    clocks = [[draw(st.sampled_from(CLOCKS_MHZ)) for _ in order] for order in schedule.orders]
    instructions = [one for order in schedule.orders for one in order]
    surprises = draw(st.lists(st.tuples(st.sampled_from(instructions), st.integers(0, ITERATIONS)), max_size=8))
    factors = {(one.stage, one.kind, one.microbatch, i): draw(st.floats(0.2, 3.0)) for one, i in surprises}
    return Case(pipeline, clocks, lags, factors, draw(st.integers(0, 99)))


def replay(case: Case, iterations: int) -> tuple[tuple[Event, ...], ...]:
    """The referee's events of the last iteration but one of so many, rank by rank, from the begin of the first."""
    return simulate(
        case.pipeline,
        case.clocks,
        case.lags,
        iterations,
        pace_s=case.pace_s,
        stretch=lambda i, one: case.factors.get((one.stage, one.kind, one.microbatch, i), 1.0),
        seed=case.seed,
    ).ranks


@contextmanager
def noted() -> Iterator[list[list[Order]]]:
    """What is asked of each clock that the referee makes, one for each rank, while this lasts."""
    orders: dict[int, list[Order]] = {}
    notes: list[list[Order]] = []
    make, ask = GpuClock.__init__, GpuClock.set

    def made(self: GpuClock, *args: object) -> None:
        make(self, *args)  # type: ignore[arg-type]
        notes.append(orders.setdefault(id(self), []))

    def asked(self: GpuClock, at: float, target: int, lag_s: float) -> None:
        orders[id(self)].append((at, target))
        ask(self, at, target, lag_s)

    with patch.object(GpuClock, "__init__", made), patch.object(GpuClock, "set", asked):
        yield notes


class Setter:
    """Orders as a clock setter does: the latest wish wins, and a clock that was ordered isn't ordered again."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self._wish: Wish | None = None
        self._ordered_mhz = DEFAULT

    def pass_until(self, now_s: float) -> None:
        """Time goes by."""
        wish = self._wish
        if wish is not None and wish.later_mhz is not None and wish.later_at_s <= now_s:
            self._order(wish.later_at_s, wish.later_mhz)
            self._wish = None

    def wish(self, wish: Wish | None, now_s: float) -> None:
        """Takes what a conductor wishes."""
        if wish is not None:
            self._wish = wish
            self._order(now_s, wish.now_mhz)

    def _order(self, at_s: float, clock_mhz: int) -> None:
        if clock_mhz != self._ordered_mhz:
            self._ordered_mhz = clock_mhz
            self.orders.append((at_s, clock_mhz or CLOCKS_MHZ[0]))


def conducted(case: Case, rank: int, iterations: list[tuple[float, tuple[Event, ...]]]) -> list[Order]:
    """What a conductor of this rank has ordered, from (when it is ready, what it runs) of each of its iterations."""
    schedule, tail_s = case.pipeline.schedule, case.pipeline.rank_tail_s(rank)
    order = tuple(Instruction.parse(one.label) for one in schedule.orders[rank])
    stages = tuple(sorted({one.stage for one in order}))
    planned = [
        (one, clock, case.pipeline.profile.at(one.stage, one.kind, clock)[0])
        for one, clock in zip(order, case.clocks[rank], strict=True)
    ]
    known = {clock % CLOCKS_MHZ[0]: row.p95_up_s for clock, row in case.lags.targets.items()}  # 0 is default clocks
    conductor = Conductor(0, stages, UpLags(case.lags.p95_up_s, known), tail_s=tail_s or 0.0, order=order)
    conductor.set_plan(
        Plan(
            purpose=Purpose.ENFORCE,
            hash="one",
            activate_at=1,
            default_clock_mhz=CLOCKS_MHZ[0],
            stages=tuple(
                StagePlan(
                    stage=stage,
                    order=tuple(one.name for one, _, _ in planned if one.stage == stage),
                    clocks_mhz=tuple(clock for one, clock, _ in planned if one.stage == stage),
                    durations_s=tuple(seconds for one, _, seconds in planned if one.stage == stage),
                )
                for stage in stages
            ),
        )
    )
    assert conductor.staged_hash == "one", conductor.reason
    setter = Setter()

    def mark(at_s: float, event: MarkerEvent, iteration: int, stage: int = 0, kind: str = "", number: int = 0) -> None:
        setter.pass_until(at_s)
        setter.wish(conductor.on_event(MarkerEntry(1, iteration, event, kind, stage, number), at_s), at_s)

    for iteration, (ready_s, events) in enumerate(iterations, start=1):
        mark(ready_s, MarkerEvent.STEP_BEGIN, iteration)
        end_s = ready_s
        for event in events:
            one, begin_s = Instruction.parse(event.instruction.label).mark, event.start_s
            end_s = begin_s + event.duration_s
            mark(begin_s, MarkerEvent.BEGIN, iteration, one.stage, one.kind, one.microbatch)
            mark(end_s, MarkerEvent.END, iteration, one.stage, one.kind, one.microbatch)
        mark(end_s + (tail_s or 0.0), MarkerEvent.STEP_END, iteration)
    mark(end_s + (tail_s or 0.0), MarkerEvent.STEP_BEGIN, iteration + 1)
    return setter.orders


def overran(case: Case, rank: int, first: Event) -> bool:
    """Whether an agent would take an iteration's first instruction for an evaluation: the referee knows none."""
    one = first.instruction
    predicted_s, _ = case.pipeline.profile.at(one.stage, one.kind, case.clocks[rank][0])
    return first.duration_s >= OVERRUN * predicted_s + case.lags.of(CLOCKS_MHZ[0]).p95_up_s - SAME_S


@pytest.mark.slow
@given(cases())
def test_conductor_and_referee_order_the_same_clocks_at_the_same_times(case: Case) -> None:
    pace_s = case.pace_s
    runs: list[tuple[tuple[Event, ...], ...]] = []
    for count in range(3, ITERATIONS + 3):  # each replay begins as the one before it, and tells one iteration more
        with noted() as asked:
            runs.append(replay(case, count))
    for rank, orders in enumerate(asked):
        iterations: list[tuple[float, tuple[Event, ...]]] = []
        ready_s = 0.0  # the rank joins before the iteration that is compared first
        for number, run in enumerate(runs, start=1):
            events = tuple(
                Event(e.instruction, number * pace_s + e.start_s, e.duration_s, e.energy_j, e.slack_s)
                for e in run[rank]
            )
            iterations.append((ready_s, events))
            ready_s = events[-1].start_s + events[-1].duration_s + (case.pipeline.rank_tail_s(rank) or 0.0)
            assert ready_s < (number + 1) * pace_s
        assume(not any(overran(case, rank, events[0]) for _, events in iterations))
        begun_s = iterations[0][1][0].start_s
        of_conductor = [order for order in conducted(case, rank, iterations) if order[0] >= begun_s - SAME_S]
        of_referee = [order for order in orders if begun_s - SAME_S <= order[0] < (ITERATIONS + 1) * pace_s]
        assert [clock for _, clock in of_conductor] == [clock for _, clock in of_referee]
        assert [at for at, _ in of_conductor] == pytest.approx([at for at, _ in of_referee], abs=SAME_S)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("up", "down")),
            st.sampled_from((DEFAULT, *CLOCKS_MHZ[1:])),
            st.floats(0.001, 0.5),
            st.sampled_from((1, 3, 19, 20)),
        ),
        max_size=30,
    )
)
def test_a_raise_goes_by_the_lag_that_the_operator_has_it_go_by(measured: list[tuple[Way, int, float, int]]) -> None:
    lags = Lags()
    for way, ordered_mhz, lag_s, times in measured:
        for _ in range(times):
            lags.add(way, ordered_mhz, lag_s)
    assume((summary := lags.summary) is not None)
    assert summary is not None
    table = lags_of(pooled([joulepath_crds.SwitchingLag(**asdict(summary))]), CLOCKS_MHZ[0])
    for ordered_mhz in (DEFAULT, *CLOCKS_MHZ[1:], 700):
        assert lags.up.to(ordered_mhz) == pytest.approx(table.of(ordered_mhz or CLOCKS_MHZ[0]).p95_up_s)


def test_all_call_the_same_slowdown_none() -> None:
    assert joulepath_crds.MARGIN == MARGIN


def test_both_call_a_tail_short_up_to_the_same_number_of_lags() -> None:
    assert joulepath_crds.TAIL_LAGS == joulepath_planner.referee.replay.TAIL_LAGS
