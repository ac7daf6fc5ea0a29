"""What one rank did: markers and records in, runs of iterations measured, and the numbers of its report out.

Markers give the time on the agent's clock, records the exact durations; an iteration is final when the one after the
next has begun and its record is there (or has been dropped). Iterations of one block make a run; a run that is over,
and that the energy counter has covered, is measured and forgotten.
"""

from __future__ import annotations

import statistics
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from joulepath_agent.gpus.energy import Trace
from joulepath_agent.measuring.applied import Applied
from joulepath_agent.measuring.block import block_report
from joulepath_agent.measuring.power import WAIT, EnergyWindows, energy_windows, fit_power
from joulepath_agent.measuring.run import Moment, Run, TimedIteration, step_begin_s
from joulepath_crds import (
    MOST_BLOCKS,
    Arm,
    BlockReport,
    Instruction,
    InstructionMeasurement,
    InstructionTime,
    WaitMeasurement,
)
from joulepath_trainer.wire.messages import IterationRecord
from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent

__all__ = ["History", "Measured"]

_FREE_RUN: Final = 8
"""Iterations after which a run that belongs to no block is measured."""
_PATIENCE: Final = 6
"""Iterations after which a record that isn't there is taken for dropped; a host that runs ahead sends them late."""
_MOST_RUNS: Final = 400
_TIMELINES: Final = 64
_WINDOW_S: Final = 0.02
_MARKS: Final = 8192
"""Markers kept of an iteration: what a peer may make the agent remember."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is made of all runs together."""

    instructions: tuple[InstructionMeasurement, ...] = ()
    waits: tuple[WaitMeasurement, ...] = ()
    timeline: tuple[InstructionTime, ...] = ()
    plan_timeline: tuple[InstructionTime, ...] = ()


@dataclass(slots=True)
class _Seen:
    """An iteration while it is being gathered."""

    applied: Applied
    marks: dict[Moment, float]
    record: IterationRecord | None = None
    spoiled: bool = False


@dataclass(slots=True)
class _Times:
    samples: int = 0
    total_s: float = 0.0
    squares: float = 0.0

    def add(self, seconds: float) -> None:
        self.samples += 1
        self.total_s += seconds
        self.squares += seconds * seconds


@dataclass(slots=True)
class History:
    """The measurements of one rank.

    Iterations are gathered from any thread; the follower among them never waits for more than that. `digest` and
    `measured`, which take milliseconds, are called by one thread.
    """

    order: tuple[Instruction, ...] = ()
    """Instructions of the last whole iteration, in the order in which they ran."""
    control_time_s: float = 0.0
    """Median period at default clocks; 0 while unknown."""
    tail_s: float | None = None
    """Least seconds from the last instruction to the next iteration at default clocks; None while unknown."""
    iteration_time_s: float = 0.0
    """Median of the last periods."""
    blocks: deque[BlockReport] = field(default_factory=lambda: deque(maxlen=MOST_BLOCKS))
    capped: str = ""
    """A clock that was ordered and not reached, in words."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _seen: dict[int, _Seen] = field(default_factory=dict)
    _finished: list[tuple[TimedIteration, Applied, bool]] = field(default_factory=list)
    _runs: deque[Run] = field(default_factory=lambda: deque(maxlen=MOST_BLOCKS))
    _last_applied: Applied | None = None
    _last_number: int = -1
    _now: int = 0
    _windows: dict[int, deque[EnergyWindows]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=_MOST_RUNS))
    )
    _times: dict[tuple[int, int, str], _Times] = field(default_factory=lambda: defaultdict(_Times))
    _timelines: dict[Arm, deque[dict[Instruction, tuple[float, float]]]] = field(
        default_factory=lambda: {arm: deque(maxlen=_TIMELINES) for arm in (Arm.DEFAULT, Arm.PLAN)}
    )
    _default_periods_s: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMELINES))
    _periods_s: deque[float] = field(default_factory=lambda: deque(maxlen=5))
    _tails_s: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMELINES))

    def begin(self, iteration: int, applied: Applied, at_s: float, *, spoiled_before: bool) -> None:
        """An iteration begins; `spoiled_before`: the one before didn't run to its end what it began."""
        with self._lock:
            if spoiled_before and (before := self._seen.get(iteration - 1)) is not None:
                before.spoiled = True
            self._seen[iteration] = _Seen(applied, {(False, None): at_s})
            self._now = iteration
            self._finish()

    def mark(self, entry: MarkerEntry, at_s: float) -> None:
        """A marker within an iteration."""
        step = None if entry.event is MarkerEvent.STEP_END else Instruction(entry.stage, entry.kind, entry.microbatch)
        with self._lock:
            if (seen := self._seen.get(entry.iteration)) is not None and len(seen.marks) < _MARKS:
                seen.marks[entry.event is not MarkerEvent.BEGIN, step] = at_s

    def record(self, record: IterationRecord) -> None:
        """The trainer's record of an iteration."""
        with self._lock:
            if (seen := self._seen.get(record.iteration)) is not None:
                seen.record = record
                self._finish()
            if record.iteration > 0 and record.spans:
                spans = sorted(record.spans, key=lambda span: span.begin_s)
                self.order = tuple(Instruction(span.stage, span.kind, span.microbatch) for span in spans)
                if record.period_s > 0:
                    self._periods_s.append(record.period_s)
                    self.iteration_time_s = statistics.median(self._periods_s)

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
        fits = {clock: fit_power(tuple(windows)) for clock, windows in self._windows.items()}
        kinds = []
        for (clock, stage, kind), times in sorted(self._times.items()):
            fit, regressor = fits.get(clock), (stage, kind)
            if fit is None or regressor not in fit.power_w:
                continue
            mean = max(1e-9, times.total_s / times.samples)
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
            for clock, fit in sorted(fits.items())
            if WAIT in fit.power_w
        )
        return Measured(tuple(kinds), waits, self._timeline(Arm.DEFAULT), self._timeline(Arm.PLAN))

    def _timeline(self, arm: Arm) -> tuple[InstructionTime, ...]:
        made = []
        for step in self.order:
            sides = [line[step] for line in self._timelines[arm] if step in line]
            if sides:
                begin_s, end_s = np.median(sides, axis=0).tolist()
                made.append(InstructionTime(instruction=step.name, stage=step.stage, begin_s=begin_s, end_s=end_s))
        return tuple(made)

    # from markers and records to runs

    def _finish(self) -> None:
        for number in [n for n in self._seen if n > self._now]:  # numbers went back: another run of the loop
            del self._seen[number]
        for number in sorted(self._seen):
            if number > self._now - 2 or (self._seen[number].record is None and number > self._now - _PATIENCE):
                return
            seen = self._seen.pop(number)
            after = self._seen.get(number + 1)
            if after is None:
                self._close()
                continue
            begin_s, next_s = _begin_s(seen), _begin_s(after)
            record = seen.record
            period_s = record.period_s if record is not None and record.period_s > 0 else next_s - begin_s
            spans = record.spans if record is not None else ()
            self._append(TimedIteration(number, begin_s, max(1e-9, period_s), spans), seen.applied, seen.spoiled)

    def _append(self, iteration: TimedIteration, applied: Applied, spoiled: bool) -> None:
        if self._finished:
            last, before, _ = self._finished[-1]
            over = applied.block == -1 and len(self._finished) >= _FREE_RUN
            if before != applied or last.number + 1 != iteration.number or over:
                self._close()
        self._finished.append((iteration, applied, spoiled))

    def _close(self) -> None:
        if not self._finished:
            return
        iterations = tuple(i for i, _, _ in self._finished)
        applied = self._finished[0][1]
        follows = self._last_number + 1 == iterations[0].number and self._last_applied is not None
        same = follows and self._last_applied is not None and self._last_applied.clock_mhz == applied.clock_mhz
        clean = not any(spoiled for _, _, spoiled in self._finished)
        self._last_applied, self._last_number = (applied if clean else None), iterations[-1].number
        self._finished = []
        if clean:
            settled = same and applied.clock_mhz is not None and applied.block == -1
            self._runs.append(Run(applied, settled, iterations))

    # from runs to numbers

    def _measure(self, run: Run, trace: Trace, covered: bool) -> None:
        whole_block = len(run.iterations) == run.applied.length
        if whole_block and covered and (report := block_report(run, trace)) is not None:
            self.blocks.append(report)
        counted = run.counted
        if run.applied.clock_mhz is None:
            self._add_timelines(Arm.PLAN, counted)
            return
        clock = run.applied.clock_mhz
        if any(run.begin_s <= at_s <= run.end_s for at_s in trace.capped_s):
            self.capped = f"ClockNotReached: {clock} MHz was set and the SM clock stayed below it"
            return
        if clock == 0:
            self._add_timelines(Arm.DEFAULT, counted)
            self._default_periods_s.extend(i.period_s for i in counted)
            self._tails_s.extend(i.period_s - i.last_end_s for i in counted if i.spans)
            self.control_time_s = statistics.median(self._default_periods_s) if self._default_periods_s else 0.0
            self.tail_s = max(0.0, min(self._tails_s)) if self._tails_s else None
        for iteration in counted:
            for span in iteration.spans:
                self._times[clock, span.stage, span.kind].add(span.end_s - span.begin_s)
        if covered and (windows := energy_windows(run, trace, _WINDOW_S)) is not None:
            self._windows[clock].append(windows)

    def _add_timelines(self, arm: Arm, iterations: tuple[TimedIteration, ...]) -> None:
        self._timelines[arm].extend(
            {Instruction(s.stage, s.kind, s.microbatch): (s.begin_s, s.end_s) for s in i.spans}
            for i in iterations
            if i.spans
        )


def _begin_s(seen: _Seen) -> float:
    found = None if seen.record is None else step_begin_s(seen.record.spans, seen.record.end_s, seen.marks)
    return seen.marks[False, None] if found is None else found
