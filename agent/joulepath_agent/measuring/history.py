"""What one rank did: markers and records in, runs of iterations measured, and the numbers of its report out.

Markers give the time on the agent's clock, records the exact durations; an iteration is final when the one after the
next has begun and its record is there (or has been dropped). Iterations of one block make a run; a run that is over,
and that the energy counter has covered, is measured and forgotten.

A record is the word of a peer: its times are cut to what lies between the markers that the agent has seen itself, and
what exceeds the budget isn't measured.
"""

from __future__ import annotations

import math
import statistics
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

import numpy as np

from joulepath_agent.gpus.energy import Trace
from joulepath_agent.measuring.block import block_report, measured_part
from joulepath_agent.measuring.pace import Pace
from joulepath_agent.measuring.power import WAIT, EnergyWindows, PowerFit, energy_windows, fit_power
from joulepath_agent.measuring.run import Moment, Run, TimedIteration, step_begin_s
from joulepath_agent.measuring.spans import KnownSteps, Spans, instruction_of
from joulepath_clocks.peers.budget import BUDGET, Budget
from joulepath_crds import (
    MOST_BLOCKS,
    Arm,
    BlockReport,
    Instruction,
    InstructionMeasurement,
    InstructionTime,
    WaitMeasurement,
)
from joulepath_rules import Applied, Length
from joulepath_trainer.wire.messages import IterationRecord
from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent

__all__ = ["LIMITS", "History", "Measured"]

LIMITS: Final = ("instructions", "regressors", "names")
"""Of the budget, by its words: beyond one of them a rank isn't measured any more."""

_FREE_RUN: Final = 8
"""Iterations after which a run that belongs to no block is measured."""
_PATIENCE: Final = 64
"""Iterations after which a record that isn't there is taken for dropped, where none after it came either: a host that
runs ahead sends them late, many at once."""
_MOST_RUNS: Final = 400
_TIMELINES: Final = 64
_DIGITS: Final = 7
"""Of a timeline's seconds: further ones tell nothing, and make a report a sixth larger."""
_TIMED: Final = 32
"""Iterations of which the seconds of each kind are kept."""
_WINDOW_S: Final = 0.02
_FAR: Final = 6.0
"""Median deviations from the middle, beyond which an iteration is none of the usual: of normal noise, one in 20,000."""
_DISTURBED: Final = (
    "OtherWork: of the iterations of a block none was measured, as each was broken off or followed by an evaluation"
)
_NEAR: Final = 0.01
"""Of the middle: what is never far."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is made of all runs together."""

    instructions: tuple[InstructionMeasurement, ...] = ()
    waits: tuple[WaitMeasurement, ...] = ()
    timeline: tuple[InstructionTime, ...] = ()
    plan_timeline: tuple[InstructionTime, ...] = ()


@dataclass(frozen=True, slots=True)
class _Told:
    """What is kept of a record."""

    end_s: float
    period_s: float
    spans: Spans | None


@dataclass(slots=True)
class _Seen:
    """An iteration while it is being gathered."""

    applied: Applied
    marks: dict[Moment, float]
    told: _Told | None = None
    spoiled: bool = False
    seemed: Length = Length.WHOLE
    """As the clocks have it."""

    @property
    def length(self) -> Length:
        """What is known of how long it took. An older trainer that sees something else behind it tells no period."""
        if self.told is None:
            return Length.UNKNOWN if self.seemed is Length.OWN else self.seemed
        return self.seemed if self.told.period_s > 0 else Length.UNKNOWN

    @property
    def seen_s(self) -> float:
        """When the marker of its begin was seen."""
        return self.marks[False, None]

    def begin_s(self, least_s: float) -> float:
        """When it began: at `least_s` at the soonest, and before its marker was seen."""
        if self.told is None or self.told.spans is None:
            return self.seen_s
        told_s = step_begin_s(self.told.spans, self.told.end_s, self.marks)
        return min(self.seen_s, max(least_s, told_s))


@dataclass(frozen=True, slots=True)
class _Times:
    """What the instructions of a kind took in some iterations."""

    samples: int
    total_s: float
    squares: float

    @property
    def mean_s(self) -> float:
        return self.total_s / self.samples


@dataclass(slots=True)
class History:
    """The measurements of one rank.

    Iterations are gathered from any thread; that of the channel among them never waits for more than that. `digest` and
    `measured`, which take milliseconds, are called by one thread.
    """

    budget: Budget = BUDGET
    order: tuple[Instruction, ...] = ()
    """Instructions of the last whole iteration, in the order in which they ran."""
    control_time_s: float = 0.0
    """Median period at default clocks; 0 while unknown."""
    tail_s: float | None = None
    """Least seconds from the last instruction to the next iteration at default clocks; None while unknown."""
    usual_tail_s: float = 0.0
    """Median of the same."""
    iteration_time_s: float = 0.0
    """Median of the last periods."""
    blocks: deque[BlockReport] = field(default_factory=lambda: deque(maxlen=MOST_BLOCKS))
    capped: str = ""
    """A clock that was held and not reached, in words."""
    disturbed: str = ""
    """Why nothing was measured in the last block that ran to its end, in words; empty where something was."""
    refused: str = ""
    """Why nothing that this rank tells is measured any more; empty while it is."""
    pace: Pace = field(default_factory=Pace)
    """Whether its own work takes longer than usual."""
    plays: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Clocks of this rank's instructions in a plan, by the plan's hash: several plans may have the same for it."""
    over_budget: str = ""
    """Which of `LIMITS` that is."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _seen: dict[int, _Seen] = field(default_factory=dict)
    _finished: list[tuple[TimedIteration, Applied, bool]] = field(default_factory=list)
    _finished_bytes: int = 0
    _runs: deque[Run] = field(default_factory=lambda: deque(maxlen=MOST_BLOCKS))
    _known: KnownSteps = field(default_factory=KnownSteps)
    _begun_s: float = math.inf
    """Begin of the iteration that was final last: the next one didn't begin before. Of the first, its marker tells."""
    _last_applied: Applied | None = None
    _last_number: int = -1
    _now: int = 0
    _paced: tuple[int, Hashable] = (-1, None)
    """The last iteration of which the pace was looked at, and at which clocks it ran."""
    _told: int = -1
    """The last iteration of which there was a record: they come in their order."""
    _windows: dict[int, deque[EnergyWindows]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=_MOST_RUNS))
    )
    _fits: dict[int, PowerFit] = field(default_factory=dict)
    _times: dict[tuple[int, int, str], deque[_Times]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=_TIMED))
    )
    """Of the newest iterations, by clock, stage and kind."""
    _timelines: dict[Arm, deque[Spans]] = field(
        default_factory=lambda: {arm: deque(maxlen=_TIMELINES) for arm in (Arm.DEFAULT, Arm.PLAN)}
    )
    _default_periods_s: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMELINES))
    _periods_s: deque[float] = field(default_factory=lambda: deque(maxlen=5))
    _tails_s: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMELINES))

    def begin(
        self,
        iteration: int,
        applied: Applied,
        at_s: float,
        *,
        spoiled_before: bool,
        length_before: Length = Length.WHOLE,
    ) -> None:
        """An iteration begins.

        `spoiled_before`: the one before didn't run to its end what it began; `length_before`: what is known of how long
        it took.
        """
        with self._lock:
            if (before := self._seen.get(iteration - 1)) is not None:
                before.spoiled, before.seemed = spoiled_before, length_before
            self._seen[iteration] = _Seen(applied, {(False, None): at_s})
            self._now = iteration
            if iteration <= self._told:
                self._told = -1
            self._finish()

    def mark(self, marks: Iterable[tuple[MarkerEntry, float]]) -> None:
        """Markers within iterations, and when each was seen."""
        with self._lock:
            for entry, at_s in islice(marks, max(0, self.budget.marks - self.marks)):
                if (seen := self._seen.get(entry.iteration)) is not None:
                    is_end = entry.event is MarkerEvent.STEP_END
                    step = None if is_end else Instruction(entry.stage, entry.kind, entry.microbatch)
                    seen.marks[entry.event is not MarkerEvent.BEGIN, step] = at_s

    def record(self, record: IterationRecord) -> None:
        """The trainer's record of an iteration."""
        if self.refused:
            return
        if not self.may_have(len(record.spans)):
            return
        spans = self._known.spans(record.spans) if record.spans else None
        if spans is not None and len(spans.steps.regressors) > self.budget.regressors:
            kinds = len(spans.steps.regressors)
            self._refuse("regressors", f"{kinds} kinds of instructions by stage", self.budget.regressors)
            return
        with self._lock:
            if (seen := self._seen.get(record.iteration)) is not None:
                seen.told = _Told(record.end_s, record.period_s, spans)
                if spans is not None:
                    self._look_at_pace(record.iteration, seen.applied, spans)
                self._told = max(self._told, record.iteration)
                self._finish()
            if record.iteration > 0 and spans is not None:
                ran = sorted(record.spans, key=lambda span: span.begin_s)
                self.order = tuple(map(instruction_of, ran))

    def _look_at_pace(self, iteration: int, applied: Applied, spans: Spans) -> None:
        """At once, and not when the iteration is final; at clocks that are known, and were those before it."""
        clocks: Hashable = applied.clock_mhz if applied.clock_mhz is not None else self.plays.get(applied.hash)
        if isinstance(clocks, tuple) and not any(clocks):
            clocks = 0
        if clocks is not None and (iteration - 1, clocks) == self._paced:
            busy_s = float((spans.times_s[:, 1] - spans.times_s[:, 0]).sum())
            self.pace.take((clocks, len(spans.steps.instructions)), busy_s)
        self._paced = iteration, clocks

    def may_have(self, instructions: int) -> bool:
        """Whether iterations of so many are measured; if not, this rank's are refused."""
        if instructions > self.budget.instructions:
            self._refuse("instructions", f"iterations of {instructions} instructions", self.budget.instructions)
        return not self.refused

    def _refuse(self, over: str, what: str, limit: int) -> None:
        self.over_budget = over
        self.refused = f"OverBudget: it tells of {what}, up to {limit} are measured; its plan goes on unmeasured"

    def digest(self, read: Callable[[], Trace]) -> bool:
        """Measures the runs that are over and that the energy counter has covered; whether there was one."""
        measured = False
        trace: Trace | None = None
        while (run := self._oldest()) is not None:
            trace = trace or read()
            if len(trace.time_s) and trace.time_s[-1] < run.end_s:
                return measured
            with self._lock:
                if self._runs and self._runs[0] is run:
                    self._runs.popleft()
            self._measure(run, trace, trace.covers(run.begin_s, run.end_s))
            measured = True
        return measured

    def _oldest(self) -> Run | None:
        with self._lock:
            return self._runs[0] if self._runs else None

    def measured(self) -> Measured:
        """Time and power of each kind at each clock, the power of waiting, and the timelines."""
        for clock in self._windows.keys() - self._fits.keys():
            self._fits[clock] = fit_power(tuple(self._windows[clock]))
        kinds = []
        for (clock, stage, kind), iterations in sorted(self._times.items()):
            fit, regressor = self._fits.get(clock), (stage, kind)
            if fit is None or regressor not in fit.power_w:
                continue
            times = _usual(iterations)
            mean = max(1e-9, times.mean_s)
            variance = max(0.0, times.squares / times.samples - mean * mean)
            kinds.append(
                InstructionMeasurement(
                    stage=stage,
                    kind=kind,
                    clock_mhz=clock,
                    samples=times.samples,
                    time_s=mean,
                    time_standard_error_s=(variance / max(1, times.samples - 1)) ** 0.5,
                    power_w=fit.power_w[regressor],
                    power_standard_error_w=fit.standard_error_w[regressor],
                )
            )
        waits = tuple(
            WaitMeasurement(
                clock_mhz=clock, power_w=fit.power_w[WAIT], power_standard_error_w=fit.standard_error_w[WAIT]
            )
            for clock, fit in sorted(self._fits.items())
            if WAIT in fit.power_w
        )
        return Measured(tuple(kinds), waits, self._timeline(Arm.DEFAULT), self._timeline(Arm.PLAN))

    def _timeline(self, arm: Arm) -> tuple[InstructionTime, ...]:
        order, lines = self.order, tuple(self._timelines[arm])
        alike = [line for line in lines if line.steps is lines[-1].steps]
        if not alike:
            return ()
        # An end in the middle and a begin in the middle may be those of different iterations: no length of any.
        sides = np.array([line.times_s for line in alike])
        begin_s, length_s = np.median(sides[..., 0], axis=0), np.median(sides[..., 1] - sides[..., 0], axis=0)
        middle = np.stack((begin_s, begin_s + length_s), axis=-1).round(_DIGITS).tolist()
        times_s = dict(zip(alike[0].steps.instructions, middle, strict=True))
        return tuple(
            InstructionTime(instruction=step.name, stage=step.stage, begin_s=times_s[step][0], end_s=times_s[step][1])
            for step in order
            if step in times_s
        )

    # what it keeps

    @property
    def marks(self) -> int:
        """Markers of the iterations that are being gathered."""
        return sum(len(seen.marks) for seen in self._seen.values())

    @property
    def window_cells(self) -> int:
        """Numbers of the windows of the energy counter."""
        return sum(one.cells for windows in self._windows.values() for one in windows)

    @property
    def pending_bytes(self) -> int:
        """What the iterations that wait to be measured keep in memory."""
        return self._finished_bytes + sum(run.bytes for run in self._runs)

    # from markers and records to runs

    def _finish(self) -> None:
        for number in [n for n in self._seen if n > self._now]:  # numbers went back: another run of the loop
            del self._seen[number]
        for number in sorted(self._seen):
            dropped = self.refused or number < self._told or number <= self._now - _PATIENCE
            if number > self._now - 2 or (self._seen[number].told is None and not dropped):
                return
            seen = self._seen.pop(number)
            after = self._seen.get(number + 1)
            if after is None:
                self._close()
                continue
            begin_s = seen.begin_s(self._begun_s)
            told, self._begun_s = seen.told, begin_s
            if told is not None and told.period_s > 0:
                period_s = min(told.period_s, after.seen_s - begin_s)
            else:
                period_s = after.begin_s(begin_s) - begin_s
            # Markers that were all seen at one look, without a record, tell no time.
            timed, period_s = period_s > 0, max(1e-9, period_s)
            length = seen.length
            if number > 0 and timed and length is not Length.UNKNOWN:
                self._periods_s.append(period_s)
                self.iteration_time_s = statistics.median(self._periods_s)
            spans = None if told is None or told.spans is None else told.spans.within(period_s)
            iteration = TimedIteration(number, begin_s, period_s, spans, length)
            self._append(iteration, seen.applied, seen.spoiled or not timed)

    def _append(self, iteration: TimedIteration, applied: Applied, spoiled: bool) -> None:
        if self._finished:
            last, before, _ = self._finished[-1]
            over = len(self._finished) >= (_FREE_RUN if applied.block == -1 else self.budget.iterations)
            if before != applied or last.number + 1 != iteration.number or over:
                self._close()
        if self._finished_bytes + iteration.bytes > self.budget.pending_bytes:
            iteration = replace(iteration, spans=None)
        self._finished_bytes += iteration.bytes
        self._finished.append((iteration, applied, spoiled))
        while self._runs and self.pending_bytes > self.budget.pending_bytes:
            self._runs.popleft()

    def _close(self) -> None:
        if not self._finished:
            return
        iterations = tuple(i for i, _, _ in self._finished)
        applied = self._finished[0][1]
        follows = self._last_number + 1 == iterations[0].number and self._last_applied is not None
        same = follows and self._last_applied is not None and self._last_applied.clock_mhz == applied.clock_mhz
        clean = not any(spoiled for _, _, spoiled in self._finished)
        self._last_applied, self._last_number = (applied if clean else None), iterations[-1].number
        if clean:
            settled = same and applied.clock_mhz is not None and applied.block == -1
            self._runs.append(Run(applied, settled, iterations, self._finished_bytes))
        self._finished, self._finished_bytes = [], 0

    # from runs to numbers

    def _measure(self, run: Run, trace: Trace, covered: bool) -> None:
        if any(run.begin_s <= at_s <= run.end_s for at_s in trace.foreign_s):
            return
        whole_block = len(run.iterations) == run.applied.length
        if whole_block:
            self.disturbed = "" if measured_part(run).counted else _DISTURBED
        if whole_block and covered and (report := block_report(run, trace)) is not None:
            self.blocks.append(report)
        counted = run.counted
        if run.applied.clock_mhz is None:
            if run.applied.arm is Arm.PLAN:
                self._add_timelines(Arm.PLAN, counted)
            return
        clock = run.applied.clock_mhz
        if clock and (below := [mhz for at_s, mhz in trace.capped if run.begin_s <= at_s <= run.end_s]):
            self.capped = (
                f"ClockNotReached: while {clock} MHz were held, power or heat let the SM clock run at "
                f"{statistics.median(below):.0f} MHz; what was measured is what holding {clock} MHz gives"
            )
        if clock == 0:
            self._add_timelines(Arm.DEFAULT, counted)
            self._default_periods_s.extend(i.period_s for i in counted)
            self._tails_s.extend(i.period_s - i.spans.last_end_s for i in counted if i.spans is not None)
            self.control_time_s = statistics.median(self._default_periods_s) if self._default_periods_s else 0.0
            if self._tails_s:
                self.usual_tail_s = max(0.0, statistics.median(self._tails_s))
                self.tail_s = max(0.0, min(self._tails_s))
        for iteration in counted:
            if iteration.spans is not None:
                self._add_times(clock, iteration.spans)
        for stretch in run.stretches if covered else ():
            if (windows := energy_windows(stretch, trace, _WINDOW_S, self.budget.window_cells)) is not None:
                self._windows[clock].append(windows)
                self._fits.pop(clock, None)
                self._drop_windows()

    def _add_times(self, clock: int, spans: Spans) -> None:
        names = [(clock, *regressor) for regressor in spans.steps.regressors]
        if len(self._times) + sum(name not in self._times for name in names) > self.budget.names:
            self._refuse("names", "too many kinds of instructions by stage and clock", self.budget.names)
            return
        seconds = spans.times_s[:, 1] - spans.times_s[:, 0]
        column = spans.steps.column
        sums = (np.bincount(column).tolist(), *(np.bincount(column, each).tolist() for each in (seconds, seconds**2)))
        for name, samples, total_s, squares in zip(names, *sums, strict=True):
            self._times[name].append(_Times(samples, total_s, squares))

    def _drop_windows(self) -> None:
        """The oldest of the clock that has most go, where there are too many."""
        while self.window_cells > self.budget.window_cells:
            most = max(self._windows, key=lambda clock: sum(one.cells for one in self._windows[clock]))
            self._windows[most].popleft()
            self._fits.pop(most, None)

    def _add_timelines(self, arm: Arm, iterations: tuple[TimedIteration, ...]) -> None:
        """Keeps iterations of known instructions only: what they don't share would take too much memory."""
        lines = self._timelines[arm]
        lines.extend(i.spans for i in iterations if i.spans is not None)
        if not all(line.steps in self._known for line in lines):
            self._timelines[arm] = deque((line for line in lines if line.steps in self._known), lines.maxlen)


def _usual(iterations: Iterable[_Times]) -> _Times:
    """All iterations but those in which something else went on: a recompilation, an autotuning, a host that stalls.

    The periods of iterations and the timelines are medians, in which such a one doesn't show: a mean with it would
    belong to another job.
    """
    each = tuple(iterations)
    middle_s = statistics.median(one.mean_s for one in each)
    spread_s = statistics.median(abs(one.mean_s - middle_s) for one in each)
    far_s = _FAR * spread_s + _NEAR * middle_s
    kept = [one for one in each if abs(one.mean_s - middle_s) <= far_s] or each
    return _Times(sum(one.samples for one in kept), sum(one.total_s for one in kept), sum(one.squares for one in kept))
