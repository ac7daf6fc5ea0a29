"""From markers, records and edges of an energy counter to seconds, watts and joules: a GPU that is known exactly."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_agent.gpus.energy import Trace
from joulepath_agent.measuring.block import block_report
from joulepath_agent.measuring.history import History
from joulepath_agent.measuring.power import TAIL, WAIT, energy_windows, fit_power
from joulepath_agent.measuring.run import Moment, Run, TimedIteration, step_begin_s
from joulepath_agent.measuring.spans import KnownSteps
from joulepath_clocks.ranks.slow_guard import _Pairs
from joulepath_crds import Arm, BlockReport, Instruction
from joulepath_rules import Applied, Length, Sort
from joulepath_trainer.wire.messages import InstructionSpan, IterationRecord
from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent

POWER_W = {"F": 300.0, "B": 380.0, "": 80.0}
SECONDS = {"F": 0.05, "B": 0.09}
MOST_CELLS = 1 << 20
EVALUATION_S = 2.0
ORDER = ("F0", "F1", "F2", "B0", "F3", "B1", "B2", "B3")


def iterations(count: int, chance: random.Random, first: int = 1, at_s: float = 100.0) -> list[TimedIteration]:
    """Iterations with waits of random length between the instructions."""
    made = []
    for number in range(first, first + count):
        now, spans = 0.0, []
        for name in ORDER:
            now += chance.choice((0.0, 0.01, 0.06))
            spans.append(InstructionSpan(name[0], 2, int(name[1:]), now, now + SECONDS[name[0]]))
            now += SECONDS[name[0]]
        made.append(TimedIteration(number, at_s, now + 0.002, KnownSteps().spans(spans)))
        at_s += now + 0.002
    return made


def told(iteration: TimedIteration) -> tuple[InstructionSpan, ...]:
    """Its instructions as a record tells them, as they ran."""
    assert iteration.spans is not None
    times_s = iteration.spans.times_s.tolist()
    spans = [
        InstructionSpan(one.kind, one.stage, one.microbatch, begin_s, end_s)
        for one, (begin_s, end_s) in zip(iteration.spans.steps.instructions, times_s, strict=True)
    ]
    return tuple(sorted(spans, key=lambda span: span.begin_s))


def counter(
    done: list[TimedIteration], period_s: float, jitter_s: float, chance: random.Random, tail_w: float = POWER_W[""]
) -> Trace:
    """What an energy counter with this period shows of them, each edge seen up to the jitter late or early."""
    times, joules = [done[0].begin_s], [0.0]
    for iteration in done:
        now = iteration.begin_s
        for span in told(iteration):
            for upto, kind in ((iteration.begin_s + span.begin_s, ""), (iteration.begin_s + span.end_s, span.kind)):
                times.append(upto)
                joules.append(joules[-1] + POWER_W[kind] * (upto - now))
                now = upto
        times.append(iteration.begin_s + iteration.period_s)
        joules.append(joules[-1] + tail_w * (times[-1] - now))
    edges = np.arange(times[0], times[-1] + 2 * period_s, period_s)
    seen = edges + np.array([chance.uniform(-jitter_s, jitter_s) for _ in edges])
    return Trace(seen, np.interp(edges, times, joules), np.full(len(edges), max(jitter_s, 1e-4)))


@given(st.integers(0, 1000))
def test_the_regression_recovers_power_by_kind_and_of_waiting(seed: int) -> None:
    chance = random.Random(seed)
    done = iterations(12, chance)
    run = Run(Applied(Arm.SWEEP, 0, "h", 900, 12), False, tuple(done))
    windows = energy_windows(run.counted, counter(done, 0.1, 0.0005, chance), 0.02, MOST_CELLS)
    assert windows is not None
    fit = fit_power([windows])
    assert fit.power_w[2, "F"] == pytest.approx(POWER_W["F"], rel=0.03)
    assert fit.power_w[2, "B"] == pytest.approx(POWER_W["B"], rel=0.03)
    assert fit.power_w[WAIT] == pytest.approx(POWER_W[""], abs=8.0)
    for regressor in fit.power_w:
        true_w = POWER_W["" if regressor == WAIT else regressor[1]]
        assert abs(fit.power_w[regressor] - true_w) < 6 * fit.standard_error_w[regressor] + 1.0


def test_an_instruction_that_takes_no_time_draws_about_what_all_do_and_disturbs_nothing() -> None:
    chance = random.Random(7)
    done = iterations(12, chance)
    steps = KnownSteps()  # a first stage has an input gradient of no input in the schedules that split backwards
    empty = [InstructionSpan("I", 2, number, 0.0, 0.0) for number in range(4)]
    with_it = [replace(one, spans=steps.spans((*empty, *told(one)))) for one in done]
    run = Run(Applied(Arm.SWEEP, 0, "h", 900, 12), False, tuple(with_it))
    windows = energy_windows(run.counted, counter(done, 0.1, 0.0005, chance), 0.02, MOST_CELLS)
    assert windows is not None
    fit = fit_power([windows])
    assert fit.power_w[2, "F"] == pytest.approx(POWER_W["F"], rel=0.03)
    assert fit.power_w[2, "B"] == pytest.approx(POWER_W["B"], rel=0.03)
    mean_w = windows.joules.sum() / windows.seconds.sum()
    assert fit.power_w[2, "I"] == pytest.approx(mean_w)
    assert fit.standard_error_w[2, "I"] == pytest.approx(mean_w)


def test_a_host_so_busy_that_its_edges_come_late_measures_no_power_of_nothing_and_says_how_little_it_knows() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        done = iterations(3, chance)
        run = Run(Applied(Arm.SWEEP, 0, "h", 900, 3), False, tuple(done))
        windows = energy_windows(run.counted, counter(done, 0.1, 0.09, chance), 0.02, MOST_CELLS)
        assert windows is not None
        fit = fit_power([windows])
        for regressor, power_w in fit.power_w.items():
            assert power_w > 0
            assert fit.standard_error_w[regressor] < POWER_W["B"], "it draws about what all do, that is known before"


def plain_seconds(times: list[float], told: list[tuple[float, InstructionSpan]]) -> dict[tuple[int, str], list[float]]:
    """Seconds of each stage and kind in each window, by looking through all instructions for each of them."""
    seconds = {}
    for regressor in sorted({(span.stage, span.kind) for _, span in told}):
        own = sorted((at + s.begin_s, at + s.end_s) for at, s in told if (s.stage, s.kind) == regressor)
        latest, disjoint = -np.inf, []
        for sides in own:
            begin_s = max(latest, sides[0])
            latest = max(begin_s, sides[1])
            disjoint.append((begin_s, latest))
        seconds[regressor] = [sum(max(0.0, min(e, w) - max(b, v)) for b, e in disjoint) for v, w in pairwise(times)]
    return seconds


@st.composite
def odd_spans(draw: st.DrawFn) -> list[InstructionSpan]:
    """Instructions in any order that may overlap, as a peer may tell them."""
    one = st.tuples(st.sampled_from("FBIW"), st.integers(0, 2), st.integers(0, 9), st.floats(0, 1), st.floats(0, 0.5))
    return [InstructionSpan(k, s, m, b, min(1.0, b + d)) for k, s, m, b, d in draw(st.lists(one, min_size=1))]


@given(st.lists(odd_spans(), min_size=2, max_size=4), st.lists(st.floats(0, 4), min_size=2, unique=True))
def test_seconds_by_kind_and_window_are_those_of_a_plain_count(records: list[Any], edges: list[float]) -> None:
    known = KnownSteps()
    done = tuple(TimedIteration(n + 1, float(n), 1.0, known.spans(spans)) for n, spans in enumerate(records))
    times = np.sort(edges)
    trace = Trace(times, times * 100.0, np.full(len(times), 1e-4))
    found = energy_windows(done, trace, 0.0, MOST_CELLS)
    counted = [at for at in times.tolist() if at <= len(done)]
    assert (found is None) == (len(counted) < 2)
    if found is not None:
        told = [(float(n), span) for n, spans in enumerate(records) for span in spans]
        plain = plain_seconds(counted, told)
        assert found.regressors == (*plain, WAIT, TAIL)
        assert pytest.approx(np.array(list(plain.values())), abs=1e-9) == found.seconds[:, :-2].T


class Counted(np.ndarray):
    """Numbers that count how many of them are handed to numpy, they and all that comes of them."""

    work = 0

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        for one in args:
            Counted.work += sum(getattr(each, "size", 0) for each in (one if isinstance(one, list | tuple) else [one]))
        found = super().__array_function__(function, types, args, kwargs)
        return found.view(Counted) if isinstance(found, np.ndarray) else found


def work_of(stages: int, microbatches: int) -> int:
    """Numbers handled for iterations of so many instructions, each stage a column of its own; few windows."""
    spans = [InstructionSpan("F", s, m, 0.001 * m, 0.001 * m) for s in range(stages) for m in range(microbatches)]
    kept = KnownSteps().spans(spans)
    counted = replace(kept, times_s=kept.times_s.view(Counted))
    done = tuple(TimedIteration(n, float(n), 1.0, counted) for n in range(1, 9))
    edges = np.arange(1.0, 9.0)
    Counted.work = 0
    windows = energy_windows(done, Trace(edges, edges, edges), 0.0, MOST_CELLS)
    assert windows is not None
    return Counted.work


@pytest.mark.parametrize(("stages", "microbatches"), [(40, 10), (20, 20)])
def test_twice_the_instructions_are_twice_the_work_whether_of_more_kinds_or_not(stages: int, microbatches: int) -> None:
    assert 8 * 200 < work_of(20, 10) < work_of(stages, microbatches) < 2.1 * work_of(20, 10)


def test_a_rank_that_never_waits_tells_nothing_of_waiting() -> None:
    spans = tuple(InstructionSpan(name[0], 2, int(name[1:]), 0.07 * i, 0.07 * (i + 1)) for i, name in enumerate(ORDER))
    done = [TimedIteration(n, 10 + 0.56 * n, 0.56, KnownSteps().spans(spans)) for n in range(1, 9)]
    run = Run(Applied(Arm.SWEEP, 0, "h", 900, 8), False, tuple(done))
    windows = energy_windows(run.counted, counter(done, 0.1, 0.0005, random.Random(1)), 0.0, MOST_CELLS)
    assert windows is not None
    assert set(fit_power([windows]).power_w) == {(2, "F"), (2, "B")}


def test_the_first_iteration_after_a_switch_and_iteration_0_are_not_counted() -> None:
    done = tuple(iterations(4, random.Random(1), first=0))
    assert [i.number for i in Run(Applied(Arm.SWEEP), False, done).counted] == [1, 2, 3]
    assert [i.number for i in Run(Applied(Arm.DEFAULT), True, done).counted] == [1, 2, 3]
    assert [i.number for i in Run(Applied(Arm.DEFAULT), True, done[1:]).counted] == [1, 2, 3]


@given(st.lists(st.floats(0.0, 0.01), min_size=3, max_size=3))
def test_a_step_began_by_the_marker_that_was_seen_soonest(delays_s: list[float]) -> None:
    spans = KnownSteps().spans((InstructionSpan("F", 0, 0, 0.1, 0.3),))
    marks: dict[Moment, float] = {
        (False, None): 50.0 + delays_s[0],
        (False, Instruction(0, "F", 0)): 50.1 + delays_s[1],
        (True, Instruction(0, "F", 0)): 50.3 + delays_s[2],
    }
    assert step_begin_s(spans, 0.4, marks) == pytest.approx(50.0 + min(delays_s))


def play(
    history: History,
    done: list[TimedIteration],
    applied: Applied,
    *,
    spoiled: int = -1,
    lost: int = -1,
    late: int = 0,
    unseen: int = -1,
    evaluates: Collection[int] = (),
    seen: Length = Length.WHOLE,
) -> None:
    """Lets a history see iterations as a rank does; one may be spoiled, a record may be lost, all may be late. After
    some it evaluates, of which the clocks have `seen` so much: an older trainer tells them nothing, and no period.

    The markers of `unseen` are seen with the begin of the next one only.
    """
    for at, iteration in enumerate(done):
        begun = iteration.begin_s if iteration.number != unseen else done[at + 1].begin_s
        before = iteration.number - 1
        length = seen if before in evaluates else Length.WHOLE
        history.begin(iteration.number, applied, begun, spoiled_before=before == spoiled, length_before=length)
        for span in told(iteration):
            for event, offset_s in ((MarkerEvent.BEGIN, span.begin_s), (MarkerEvent.END, span.end_s)):
                entry = MarkerEntry(0, iteration.number, event, span.kind, span.stage, span.microbatch)
                history.mark([(entry, begun if iteration.number == unseen else begun + offset_s + 0.0003)])
        for ready in done[max(0, at - late) : at + 1 - late] if at < len(done) - 1 else done[max(0, at - late) :]:
            if ready.number != lost and not (seen is Length.UNKNOWN and ready.number in evaluates):
                own_s = ready.period_s - EVALUATION_S if seen is Length.OWN else 0.0
                period_s = own_s if ready.number in evaluates else ready.period_s
                history.record(IterationRecord(ready.number, ready.period_s - 0.002, period_s, told(ready)))


def history_of(length: int, **faults: Any) -> History:
    """A block of this length amid iterations at default clocks."""
    chance = random.Random(3)
    done = iterations(length + 16, chance)
    history = History()
    play(history, done[:6], Applied(Arm.DEFAULT))
    play(history, done[6 : 6 + length], Applied(Arm.SWEEP, 0, "h", 900, length), **faults)
    play(history, done[6 + length :], Applied(Arm.DEFAULT))
    trace = counter(done, 0.1, 0.0, chance)
    assert history.digest(lambda: trace)
    return history


def measured_s(slow_at: int, slow_s: float) -> dict[str, tuple[float, float]]:
    """Seconds of each kind at default clocks and their standard errors, where an instruction of an iteration waited."""
    chance = random.Random(3)
    done = iterations(20, chance)
    if slow_at >= 0:
        spans = done[slow_at].spans
        assert spans is not None
        times_s = spans.times_s.copy()
        times_s[-1, 1] += slow_s
        done[slow_at] = replace(done[slow_at], spans=replace(spans, times_s=times_s))
        done[slow_at:] = [
            replace(one, begin_s=one.begin_s + (slow_s if n else 0), period_s=one.period_s + (0 if n else slow_s))
            for n, one in enumerate(done[slow_at:])
        ]
    history = History()
    play(history, done, Applied(Arm.DEFAULT))
    trace = counter(done, 0.1, 0.0, chance)
    assert history.digest(lambda: trace)
    return {one.kind: (one.time_s, one.time_standard_error_s) for one in history.measured().instructions}


@pytest.mark.parametrize("slow_at", [2, 9])
def test_an_iteration_in_which_something_was_compiled_tells_nothing_of_the_others(slow_at: int) -> None:
    usual = measured_s(-1, 0.0)
    for kind, (time_s, error_s) in measured_s(slow_at, 3.0).items():
        assert time_s == pytest.approx(usual[kind][0], rel=2e-3)
        assert error_s <= 1e-3 * time_s


def test_a_block_reports_the_joules_of_its_counted_iterations() -> None:
    (block,) = history_of(5).blocks
    assert (block.hash, block.block, block.arm, block.iterations) == ("h", 0, Arm.SWEEP, 4)
    done = iterations(21, random.Random(3))[7:11]
    busy_j = 4 * sum(SECONDS[kind] * POWER_W[kind] for kind in "FB")
    busy_s = 4 * sum(SECONDS.values())
    period_s = sum(i.period_s for i in done) / 4
    assert block.iteration_time_s == pytest.approx(period_s)
    assert block.energy_per_iteration_j == pytest.approx(busy_j + (period_s - busy_s) * POWER_W[""], rel=0.01)


@pytest.mark.parametrize(("length", "late"), [(5, 3), (20, 12)])
def test_records_of_a_host_that_runs_ahead_come_late_and_count(length: int, late: int) -> None:
    assert history_of(length, late=late).measured().instructions == history_of(length).measured().instructions


def test_a_block_that_was_spoiled_is_not_reported() -> None:
    assert not history_of(5, spoiled=9).blocks


@pytest.mark.parametrize("seen", Length)
@pytest.mark.parametrize("arm", [Arm.CONTROL, Arm.SWEEP])
@pytest.mark.parametrize("every", [2, 4])
def test_evaluations_every_few_iterations_leave_no_trace_in_what_is_measured(
    arm: Arm, seen: Length, every: int
) -> None:
    """Of every second one, those that it follows are measured where it is known when it begins, else those between."""
    chance = random.Random(3)
    done, evaluates = iterations(60, chance), range(4, 60, every)
    own_s = {one.number: one.period_s for one in done}
    late_s = 0.0
    for at, one in enumerate(done):
        longer_s = EVALUATION_S if one.number in evaluates else 0.0
        done[at] = replace(one, begin_s=one.begin_s + late_s, period_s=one.period_s + longer_s)
        late_s += longer_s
    history, mhz = History(), 900 if arm is Arm.SWEEP else 0
    play(history, done[:10], Applied(Arm.DEFAULT), evaluates=evaluates, seen=seen)
    play(history, done[10:50], Applied(arm, 0, "h", mhz, 40), evaluates=evaluates, seen=seen)
    play(history, done[50:], Applied(Arm.DEFAULT), evaluates=evaluates, seen=seen)
    trace = counter(done, 0.1, 0.0, chance, tail_w=350.0)
    assert history.digest(lambda: trace)
    usual_s = max(own_s.values())
    assert history.control_time_s <= usual_s
    assert history.usual_tail_s == pytest.approx(0.002)
    assert history.iteration_time_s <= usual_s
    (block,) = history.blocks
    assert block.sort is (Sort.WHOLE if every > 2 else Sort.OWN if seen is Length.OWN else Sort.DISTURBED)
    kept = [number for number in range(12, 51 if arm is Arm.SWEEP else 50) if number - 1 not in evaluates]
    kept = [number for number in kept if (number in evaluates) == (every == 2)]
    if every == 2 and seen is not Length.OWN:
        kept = list(range(13, 50, 2))
    period_s = sum(map(own_s.__getitem__, kept)) / len(kept)
    busy_j, busy_s = 4 * sum(SECONDS[kind] * POWER_W[kind] for kind in "FB"), 4 * sum(SECONDS.values())
    assert block.iterations == len(kept)
    assert block.iteration_time_s == pytest.approx(period_s)
    # What an edge of the counter leaves open at a begin, the end of the one before makes good, where that counts.
    close = 0.02 if kept[0] in evaluates else 0.01
    assert block.energy_per_iteration_j == pytest.approx(busy_j + (period_s - busy_s) * POWER_W[""], rel=close)
    (wait,) = (one.power_w for one in history.measured().waits if one.clock_mhz == mhz)
    assert wait == pytest.approx(POWER_W[""], rel=0.1)
    powers = {one.kind: one.power_w for one in history.measured().instructions if one.clock_mhz == mhz}
    assert powers == pytest.approx({kind: POWER_W[kind] for kind in "FB"}, rel=0.05)


def reported(done: list[TimedIteration], lengths: list[Length], arm: Arm) -> BlockReport | None:
    """Of a block of one arm, some of whose iterations are cut."""
    block = tuple(replace(one, length=each) for one, each in zip(done, lengths, strict=True))
    trace = counter(done, 0.1, 0.0, random.Random(1))
    return block_report(Run(Applied(arm, 0, "h", None, len(block)), False, block), trace)


@given(st.lists(st.sampled_from(Length), min_size=3, max_size=20), st.integers(0, 99))
def test_both_arms_lose_the_same_iterations_to_whatever_cuts_them_and_the_slow_guard_does_as_well(
    lengths: list[Length], seed: int
) -> None:
    done = iterations(len(lengths), random.Random(seed))
    plan, control = (reported(done, lengths, arm) for arm in (Arm.PLAN, Arm.CONTROL))
    assert (plan is None) == (control is None)
    pairs = _Pairs()
    guarded = [
        pairs.period(Applied(arm, block, "h", None, len(lengths)), each, one.period_s)
        for block, arm in enumerate((Arm.CONTROL, Arm.PLAN))
        for one, each in zip(done, lengths, strict=True)
    ]
    assert not any(guarded[:-1])
    if plan is None or control is None:
        assert guarded[-1] is None
        return
    assert plan.model_copy(update={"arm": Arm.CONTROL}) == control
    assert guarded[-1] == pytest.approx((plan.iteration_time_s, control.iteration_time_s))
    longer = [
        replace(one, period_s=one.period_s + 9 * (each is Length.UNKNOWN))
        for one, each in zip(done, lengths, strict=True)
    ]
    timed = reported(longer, lengths, Arm.PLAN)
    assert timed is not None
    assert timed.iteration_time_s == plan.iteration_time_s, "how long what cuts them lasts is nothing"


def test_a_block_of_which_nothing_is_measured_is_told_until_there_is_one() -> None:
    chance = random.Random(3)
    done, history = iterations(30, chance), History()
    trace = counter(done, 0.1, 0.0, chance)
    play(history, done[:15], Applied(Arm.SWEEP, 0, "h", 900, 15), evaluates=range(16), seen=Length.UNKNOWN)
    play(history, done[15:18], Applied(Arm.SWEEP, 1, "h", 1200, 10), evaluates=range(16), seen=Length.UNKNOWN)
    history.digest(lambda: trace)
    assert history.disturbed.startswith("OtherWork: of the iterations of a block none was measured")
    play(history, done[18:25], Applied(Arm.SWEEP, 1, "h", 1200, 10))
    play(history, done[25:], Applied(Arm.DEFAULT))
    history.digest(lambda: trace)
    assert history.disturbed == ""


def test_a_block_whose_last_iteration_alone_would_count_has_nothing_measured_and_that_is_told() -> None:
    """Plan and control blocks leave it out: clocks are on their way to the next block's at its end."""
    chance = random.Random(3)
    done, history = iterations(30, chance), History()
    trace = counter(done, 0.1, 0.0, chance)
    play(history, done[:10], Applied(Arm.CONTROL, 0, "h", 0, 10), evaluates=range(10), seen=Length.UNKNOWN)
    play(history, done[10:], Applied(Arm.DEFAULT))
    history.digest(lambda: trace)
    assert not history.blocks
    assert history.disturbed


def test_a_block_in_which_somebody_else_set_the_clock_is_not_compared_and_the_others_are() -> None:
    chance = random.Random(3)
    done = iterations(26, chance)
    stolen_s = done[8].begin_s
    blocks = []
    for foreign_s in ((), (stolen_s,)):
        history = History()
        for block, first in enumerate((1, 6, 11, 16)):
            play(history, done[first : first + 5], Applied(Arm.SWEEP, block, "h", 900 + block, 5))
        trace = counter(done, 0.1, 0.0, chance)
        history.digest(partial(replace, trace, foreign_s=foreign_s))
        blocks.append([block.block for block in history.blocks])
    assert 1 in blocks[0]
    assert blocks[1] == [block for block in blocks[0] if block != 1]


def test_a_lost_record_costs_the_block_its_regression_but_not_its_joules() -> None:
    history = history_of(5, lost=9)
    assert len(history.blocks) == 1
    assert {kind.clock_mhz for kind in history.measured().instructions} == {0}


def test_an_iteration_of_which_nothing_tells_the_time_spoils_its_block() -> None:
    assert len(history_of(5, unseen=9).blocks) == 1, "its record tells it"
    history = history_of(5, unseen=9, lost=9)
    assert not history.blocks
    assert history.iteration_time_s > 0.1


def test_times_tail_and_timeline_come_from_the_records() -> None:
    history = history_of(5)
    measured = history.measured()
    assert {(k.kind, k.clock_mhz) for k in measured.instructions} == {(k, c) for k in "FB" for c in (0, 900)}
    for kind in measured.instructions:
        assert kind.time_s == pytest.approx(SECONDS[kind.kind])
    assert history.tail_s == pytest.approx(0.002)
    assert [line.instruction for line in measured.timeline] == list(ORDER)
    assert measured.plan_timeline == ()


def test_a_block_in_which_two_clocks_take_turns_tells_its_time_and_joules_and_nothing_of_a_clock_or_a_plan() -> None:
    chance = random.Random(3)
    done = iterations(21, chance)
    history = History()
    play(history, done[:6], Applied(Arm.DEFAULT))
    play(history, done[6:11], Applied(Arm.SWEEP, 0, "h", None, 5))
    play(history, done[11:], Applied(Arm.DEFAULT))
    trace = counter(done, 0.1, 0.0, chance)
    assert history.digest(lambda: trace)
    (block,) = history.blocks
    assert (block.arm, block.iterations) == (Arm.SWEEP, 4)
    measured = history.measured()
    assert {one.clock_mhz for one in measured.instructions} == {0}
    assert measured.timeline
    assert measured.plan_timeline == ()


def test_iterations_whose_numbers_go_back_start_afresh() -> None:
    history = history_of(5)
    play(history, iterations(6, random.Random(4), first=0, at_s=500.0), Applied(Arm.DEFAULT))
    assert history.order == tuple(Instruction(2, name[0], int(name[1:])) for name in ORDER)
