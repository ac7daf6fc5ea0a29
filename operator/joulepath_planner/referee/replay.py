"""The referee: replays a plan as the GPUs and the agent would run it, and believes nothing else.

It shares no code with the solver. Ranks execute their orders, messages travel, iterations follow back to back until
they repeat; that period is the iteration time. With lags it replays the agent's rule, *raise early, lower late*:

- a lower clock for the next instruction is set when the current one ends, and is in force a lag later;
- a higher one is set at begin + predicted duration of the current one - p95 lag to the higher one, never before that
  begin and never after that end, so that it is in force when the next begins;
- a second set waits until the first is in force;
- where switches pause a GPU, what runs there stands still for so long once one is in force;
- what an instruction does beyond those of its kind comes behind its work, before its end as agents see it.

An instruction that runs at several clocks progresses through them piece by piece. A wait costs the blocking power of
the clock in force. Nothing sets a clock for a wait of its own, since agents don't. That an agent takes a first
instruction of more than twice its length for an evaluation, and returns to default clocks, isn't replayed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, pairwise
from random import Random
from typing import Final, TypeAlias

from joulepath_planner.arguments import checked, fits, quoted
from joulepath_planner.errors import ArgumentError
from joulepath_planner.inputs.instruction import Instruction
from joulepath_planner.inputs.lags import NO_LAG, LagTable
from joulepath_planner.inputs.pipeline import Pipeline
from joulepath_planner.inputs.schedule import Clocks
from joulepath_planner.referee.execution import script
from joulepath_planner.referee.gpu_clock import GpuClock

__all__ = ["TAIL_LAGS", "Event", "RankEnergy", "Referee", "Simulation", "Stretch", "simulate"]

Stretch: TypeAlias = Callable[[int, Instruction], float]
"""How many times as long as measured (and as many joules) an instruction takes in the iteration of that number."""

TAIL_LAGS: Final = 4
"""A tail of at most so many p95 lags to default clocks doesn't return to them; agents keep the same rule."""
_SAME_S: Final = 1e-9
_MOST_ITERATIONS: Final = 32
_LONGEST_CYCLE: Final = 4


@dataclass(frozen=True, slots=True)
class Event:
    """One instruction as it ran. start_s counts from the iteration's first start; duration_s and energy_j are of its
    work alone, without what is extra; slack_s is how much later it may end without delaying the iterations after
    it."""

    instruction: Instruction
    start_s: float
    duration_s: float
    energy_j: float
    slack_s: float


@dataclass(frozen=True, slots=True)
class RankEnergy:
    """Joules of all GPUs of one rank in one iteration by cause; the tail (R and O) is charged at blocking power."""

    compute_j: float
    wait_j: float
    tail_j: float

    @property
    def total_j(self) -> float:
        return self.compute_j + self.wait_j + self.tail_j


@dataclass(frozen=True, slots=True)
class Simulation:
    """A steady iteration. iteration_time_s is the period; switches counts the sets of all ranks in an iteration.

    iteration_times_s: from the end of each iteration to the end of the next, one for each iteration but the first.
    least_dwell_s: the shortest time between two sets of one GPU; infinite where none has two.
    wait_power_w: mean watts of one GPU of each rank while it waits, the tail included; nan where it never waits.
    """

    iteration_time_s: float
    ranks: tuple[tuple[Event, ...], ...]
    energy: tuple[RankEnergy, ...]
    critical_path: tuple[Instruction, ...]
    switches: int
    iteration_times_s: tuple[float, ...]
    least_dwell_s: float
    wait_power_w: tuple[float, ...]

    @property
    def energy_j(self) -> float:
        return sum(rank.total_j for rank in self.energy)


@checked
def simulate(
    pipeline: Pipeline,
    clocks: Clocks | None = None,
    lags: LagTable | None = None,
    iterations: int = 3,
    *,
    pace_s: float | None = None,
    stretch: Stretch | None = None,
    seed: int | None = None,
) -> Simulation:
    """Replay `clocks` (None: default clocks throughout) for at least `iterations` (3 or more), until they repeat.

    pace_s: no iteration begins sooner than this after the last one, as when another pipeline fixes the time.
    stretch, seed: what differs from one iteration to the next: a factor on durations and joules, and lags drawn
        within their spread. With either, exactly `iterations` are replayed, and the figures are means over all but
        the first.

    Raises:
        ArgumentError: There are too few iterations, or clocks of other instructions than the schedule's.
        ScheduleError: A rank waits forever.
    """
    return Referee(pipeline).replay(clocks, lags, iterations, pace_s=pace_s, stretch=stretch, seed=seed)


class Referee:
    """A pipeline's rules, made ready to replay many plans of it.

    Raises:
        ScheduleError: A rank waits forever.
    """

    @checked
    def __init__(self, pipeline: Pipeline) -> None:
        orders = pipeline.schedule.orders
        self.ranks = len(orders)
        self.profile = pipeline.profile
        self.gpus = [pipeline.rank_gpus(rank) for rank in range(self.ranks)]
        self.tails = [pipeline.rank_tail_s(rank) for rank in range(self.ranks)]
        self.defaults = [pipeline.profile.default_clock_mhz(order[0].stage) for order in orders]
        self._clocks: list[tuple[int, int]] = []
        """The lowest and the highest clock of each rank."""
        for order in orders:
            stages = {one.stage for one in order}
            clocks = {
                point.clock_mhz
                for (stage, _), points in pipeline.profile.points.items()
                if stage in stages
                for point in (points[0], points[-1])
            }
            self._clocks.append((min(clocks), max(clocks)))
        self.script = script(pipeline)
        self.of_rank: list[list[int]] = [[] for _ in orders]
        for number, scripted in enumerate(self.script):
            self.of_rank[scripted.rank].append(number)
        self.previous = [0] * len(self.script)
        """What is before it on the same rank; for its first, its last (of the iteration before)."""
        for of in self.of_rank:
            for number, previous in zip(of, [of[-1], *of], strict=False):
                self.previous[number] = previous
        self._cost: dict[tuple[int, str, int], tuple[float, float]] = {}

    def replay(
        self,
        clocks: Clocks | None = None,
        lags: LagTable | None = None,
        iterations: int = 3,
        *,
        pace_s: float | None = None,
        stretch: Stretch | None = None,
        seed: int | None = None,
    ) -> Simulation:
        """As `simulate`."""
        if not fits(iterations, int) or iterations < 3:
            raise ArgumentError(
                f"iterations is {quoted(iterations)}; give a whole number from 3 on: a steady period shows no sooner."
            )
        if not fits(lags, LagTable | None):
            raise ArgumentError(f"lags is {quoted(lags)}; it must be a LagTable or None.")
        replay = _Replay(self, self._targets(clocks), lags or NO_LAG, pace_s, stretch, seed)
        for _ in range(iterations):
            replay.iterate()
        if stretch is not None or seed is not None:
            return replay.report(iterations - 2)
        while (cycle := replay.cycle()) is None and replay.count < _MOST_ITERATIONS:
            replay.iterate()
        return replay.report(cycle or replay.count // 2)

    def at(self, one: Instruction, clock: int) -> tuple[float, float]:
        """Seconds and joules of one GPU."""
        key = one.stage, one.kind, clock
        if (known := self._cost.get(key)) is None:
            known = self._cost[key] = self.profile.at(*key)
        return known

    def _targets(self, clocks: Clocks | None) -> list[list[int]]:
        if clocks is None:
            return [[default] * len(of) for default, of in zip(self.defaults, self.of_rank, strict=True)]
        if len(clocks) != self.ranks:
            raise ArgumentError(f"the pipeline has {self.ranks} ranks, but clocks of {len(clocks)} are given.")
        for rank, (row, of) in enumerate(zip(clocks, self.of_rank, strict=True)):
            if len(row) != len(of):
                raise ArgumentError(f"rank {rank} has {len(of)} instructions, but {len(row)} clocks are given.")
            for clock in {*row}:
                self._check_clock(rank, clock)
        return [[clock or default for clock in row] for row, default in zip(clocks, self.defaults, strict=True)]

    def _check_clock(self, rank: int, clock: int | None) -> None:
        low, high = self._clocks[rank]
        if not fits(clock, int | None) or not low <= (clock or high) <= high:
            raise ArgumentError(
                f"rank {rank} has a clock of {quoted(clock)} MHz; give whole numbers from {low} to {high} MHz, which "
                "the profile has, or None for the default clock."
            )


class _Replay:
    def __init__(
        self,
        rules: Referee,
        targets: list[list[int]],
        lags: LagTable,
        pace_s: float | None,
        stretch: Stretch | None,
        seed: int | None,
    ) -> None:
        self._rules, self._pace_s, self._stretch = rules, pace_s, stretch
        self._lags, self._draws = lags, None if seed is None else Random(seed)
        power_w = {clock: rules.profile.wait_power_w(clock) for clock in {*rules.defaults, *chain(*targets)}}
        self._gpus = [GpuClock(default, power_w, lags.pause_s) for default in rules.defaults]
        self._firsts = {of[0]: rank for rank, of in enumerate(rules.of_rank)}
        self._lasts = {of[-1]: rank for rank, of in enumerate(rules.of_rank)}
        self._next_target = [row[0] for row in targets]
        for gpu, target in zip(self._gpus, self._next_target, strict=True):
            self._set(gpu, 0.0, target)
        # By place in the script: (clock, seconds, joules, the clock after it, when to set that if higher, its lag).
        self._score = [(0, 0.0, 0.0, 0, 0.0, 0.0)] * len(rules.script)
        for rank, (clocks, of) in enumerate(zip(targets, rules.of_rank, strict=True)):
            tail = rules.tails[rank]
            returns = tail is not None and tail > TAIL_LAGS * lags.of(rules.defaults[rank]).p95_up_s
            for here, after, number in zip(
                clocks, [*clocks[1:], rules.defaults[rank] if returns else clocks[0]], of, strict=True
            ):
                seconds, joules = rules.at(rules.script[number].instruction, here)
                row, lasts_s = lags.of(after), seconds + rules.script[number].extra_s
                early, lag = max(0.0, lasts_s - row.p95_up_s), row.up_s if after > here else row.down_s
                self._score[number] = here, seconds, joules, after, early, lag
        self._ready = [0.0] * rules.ranks
        self.count = 0
        # By place in the script, of the last iterations only; the sums below, by rank, of all.
        self._begins, self._ends, self._joules = (deque[list[float]](maxlen=3) for _ in range(3))
        self._first_begins: list[list[float]] = []
        # All that the next iteration depends on: times, and the clocks that they are of.
        self._states = deque[tuple[list[float], list[list[int]]]](maxlen=_LONGEST_CYCLE + 1)
        self._compute_j: list[list[float]] = []
        self._wait_j: list[list[float]] = []
        self._tail_j: list[list[float]] = []
        self._busy_s: list[list[float]] = []
        self._finished: list[float] = []
        self._sets: list[int] = []

    def iterate(self) -> None:
        """Execute one more iteration on every rank."""
        rules, gpus, ready_of, score, stretch = self._rules, self._gpus, self._ready, self._score, self._stretch
        draws = self._draws
        begins, ends, spent = ([0.0] * len(score) for _ in range(3))
        compute_j, wait_j, tail_j, busy_s = ([0.0] * rules.ranks for _ in range(4))
        for number, (one, rank, gap, extra, inputs) in enumerate(rules.script):
            gpu, begin = gpus[rank], ready_of[rank] + gap
            for source, delay in inputs:
                if (arrival := ends[source] + delay) > begin:
                    begin = arrival
            if self._pace_s is not None and self._begins and number in self._firsts:
                begin = max(begin, self._begins[-1][number] + self._pace_s)
            if begin > ready_of[rank]:
                wait_j[rank] += gpu.wait_j(ready_of[rank], begin)
            if gpu.pending:
                gpu.settle(begin)
            here, seconds, joules, after, raise_s, lag = score[number]
            factor = 1.0 if stretch is None else stretch(self.count, one)
            if gpu.pending or gpu.clock != here or gpu.stands_until > begin:
                end, joules = self._work(one, gpu, begin, factor)
            else:
                end, joules = begin + seconds * factor, joules * factor
            if after != here:
                if draws is not None:
                    lag = self._lags.draw_s(after, after > here, draws)
                gpu.set(min(begin + raise_s, end + extra) if after > here else end + extra, after, lag)
                if gpu.pending[0][0] < end:
                    end, joules = self._work(one, gpu, begin, factor)
            compute_j[rank] += joules
            busy_s[rank] += end - begin
            if extra:
                wait_j[rank] += gpu.wait_j(end, end + extra)
                end += extra
            begins[number], ends[number], spent[number] = begin, end, joules
            ready_of[rank] = end
            if number in self._lasts and (tail := rules.tails[rank]) is not None:
                tail_j[rank] = gpu.wait_j(end, end + tail)
                self._set(gpu, end + tail, self._next_target[rank])
                ready_of[rank] = end + tail
        self._begins.append(begins)
        self._ends.append(ends)
        self._joules.append(spent)
        self._first_begins.append([begins[first] for first in self._firsts])
        self._states.append(
            (
                [
                    *self._first_begins[-1],
                    *ready_of,
                    *(at for gpu in gpus for at, _ in gpu.pending),
                    *(max(gpu.stands_until, ready) for gpu, ready in zip(gpus, ready_of, strict=True) if gpu.pause_s),
                ],
                [[gpu.clock, *(clock for _, clock in gpu.pending)] for gpu in gpus],
            )
        )
        self._compute_j.append(compute_j)
        self._busy_s.append(busy_s)
        self._wait_j.append(wait_j)
        self._tail_j.append(tail_j)
        self._finish()

    def _finish(self) -> None:
        self.count += 1
        self._finished.append(max(self._ready))
        self._sets.append(sum(gpu.sets for gpu in self._gpus))
        if self.count == 1:  # the way into the first iteration is no switch of a steady one
            for gpu in self._gpus:
                gpu.dwell = math.inf

    def _set(self, gpu: GpuClock, at: float, target: int) -> None:
        if target != gpu.target:
            gpu.set(at, target, self._lags.draw_s(target, target > gpu.target, self._draws))

    def _work(self, one: Instruction, gpu: GpuClock, begin: float, factor: float) -> tuple[float, float]:
        """(end, joules) of an instruction that begins now, over all clocks and pauses that it meets."""
        left, now, spent, resumes = 1.0, begin, 0.0, gpu.stands_until
        for until, clock in gpu.segments():
            seconds, joules = self._rules.at(one, clock)
            if resumes > now:
                paused_s = min(resumes, until) - now
                now, spent = now + paused_s, spent + paused_s * joules / seconds
            share = min(left, (until - now) / (seconds * factor))
            spent += share * joules * factor
            if share == left:
                return now + left * seconds * factor, spent
            left, now, resumes = left - share, until, until + gpu.pause_s
        raise AssertionError("the last segment lasts forever")

    def cycle(self) -> int | None:
        """How many iterations repeat: the least number after which all is as before, later by the same time."""
        now_s, clocks = self._states[-1]
        for cycle in range(1, min(_LONGEST_CYCLE, self.count - 2) + 1):
            before_s, before = self._states[-1 - cycle]
            if clocks == before:
                shifts = [now - then for then, now in zip(before_s, now_s, strict=True)]
                if max(shifts) - min(shifts) < _SAME_S:
                    return cycle
        return None

    def _shifts(self, span: int) -> list[float]:
        return [
            here - before for before, here in zip(*(self._first_begins[back] for back in (-1 - span, -1)), strict=True)
        ]

    def report(self, span: int) -> Simulation:
        """The figures of the last `span` whole iterations, and the events of the last but one."""
        rules, begins, ends, joules = self._rules, self._begins[-2], self._ends[-2], self._joules[-2]
        slack, origin, period = self._slack(), min(self._first_begins[-2]), max(self._shifts(span)) / span
        energy, power = [], []
        for rank, gpus in enumerate(rules.gpus):
            compute, tail, busy = (
                sum(row[rank] for row in rows[-1 - span : -1]) / span
                for rows in (self._compute_j, self._tail_j, self._busy_s)
            )
            waits = sum(row[rank] for row in self._wait_j[-span:]) / span  # before an instruction: one iteration on
            energy.append(RankEnergy(compute * gpus, waits * gpus, tail * gpus))
            power.append((waits + tail) / (period - busy) if period - busy > _SAME_S else math.nan)
        return Simulation(
            iteration_time_s=period,
            ranks=tuple(
                tuple(
                    Event(
                        rules.script[n].instruction,
                        begins[n] - origin,
                        ends[n] - begins[n] - rules.script[n].extra_s,
                        joules[n] * gpus,
                        slack[n],
                    )
                    for n in of
                )
                for gpus, of in zip(rules.gpus, rules.of_rank, strict=True)
            ),
            energy=tuple(energy),
            critical_path=tuple(self._critical()),
            switches=self._sets[-2] - self._sets[-3],
            iteration_times_s=tuple(after - before for before, after in pairwise(self._finished)),
            least_dwell_s=min(gpu.dwell for gpu in self._gpus),
            wait_power_w=tuple(power),
        )

    def _slack(self) -> list[float]:
        """Of each instruction of the last iteration but one, until the last end of all."""
        rules = self._rules
        slack = [math.inf] * len(rules.script)
        for last, rank in self._lasts.items():
            slack[last] = self._finished[-1] - self._ready[rank]
        for back in (-1, -2):
            begins, ends = self._begins[back], self._ends[back]
            earlier = [math.inf] * len(rules.script)
            for number in range(len(rules.script) - 1, -1, -1):
                _, rank, gap, _, inputs = rules.script[number]
                late, previous = slack[number] + begins[number], rules.previous[number]
                for source, delay in inputs:
                    if (room := late - delay - ends[source]) < slack[source]:
                        slack[source] = room
                if number in self._firsts:
                    earlier[previous] = late - gap - (rules.tails[rank] or 0.0) - self._ends[back - 1][previous]
                elif (room := late - gap - ends[previous]) < slack[previous]:
                    slack[previous] = room
            if back == -1:
                slack = earlier
        return slack

    def _critical(self) -> list[Instruction]:
        """Of the last iteration but one, what the last end of all has waited for, step by step."""
        rules, back = self._rules, -1
        number = next(last for last, rank in self._lasts.items() if self._ready[rank] == self._finished[-1])
        path = []
        while back >= -2:
            one, rank, gap, _, inputs = rules.script[number]
            if back == -2:
                path.append(one)
            begin, previous = self._begins[back][number], rules.previous[number]
            causes = [(begin - delay - self._ends[back][source], source, back) for source, delay in inputs]
            if number in self._firsts:
                tail = rules.tails[rank] or 0.0
                causes.append((begin - gap - tail - self._ends[back - 1][previous], previous, back - 1))
            else:
                causes.append((begin - gap - self._ends[back][previous], previous, back))
            _, number, back = min(causes)
        return path[::-1]
