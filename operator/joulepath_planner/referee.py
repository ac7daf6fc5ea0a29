"""The referee: replays a plan as the GPUs and the agent would run it, and believes nothing else.

It shares no code with the solver. Ranks execute their orders, messages travel, iterations follow back to back until
they repeat; that period is the iteration time. With lags it replays the agent's rule, *raise early, lower late*:

- a lower clock for the next instruction is set when the current one ends, and is in force a lag later;
- a higher one is set at begin + predicted duration - p95 lag of the current one, never before its begin and never
  after its end, so that it is in force when the next begins;
- a second set waits until the first is in force.

An instruction that runs at several clocks progresses through them piece by piece. A wait costs the blocking power of
the clock in force. Nothing sets a clock for a wait of its own, since agents don't.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from joulepath_planner.execution import script
from joulepath_planner.lags import NO_LAG, LagTable
from joulepath_planner.pipeline import Pipeline
from joulepath_planner.schedule import Instruction

Clocks = Sequence[Sequence[int | None]]
"""Per rank, in its order, the clock of each instruction in MHz; None is the default clock."""

Stretch = Callable[[int, Instruction], float]
"""How many times as long as measured (and as many joules) an instruction takes in the iteration of that number."""

TAIL_LAGS = 4
"""A tail of at most so many p95 lags doesn't return to default clocks; agents keep the same rule."""
_SAME_S = 1e-9
_MOST_ITERATIONS = 32
_LONGEST_CYCLE = 4


@dataclass(frozen=True, slots=True)
class Event:
    """One instruction as it ran. start_s counts from the iteration's first start; slack_s is how much later it may
    end without delaying the iterations after it."""

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
    """
    return Referee(pipeline).replay(clocks, lags, iterations, pace_s=pace_s, stretch=stretch, seed=seed)


class Referee:
    """A pipeline's rules, made ready to replay many plans of it. Raises `ScheduleError` where a rank waits forever."""

    def __init__(self, pipeline: Pipeline) -> None:
        orders = pipeline.schedule.orders
        self.ranks = len(orders)
        self.profile = pipeline.profile
        self.gpus = [pipeline.rank_gpus(rank) for rank in range(self.ranks)]
        self.tails = [pipeline.rank_tail_s(rank) for rank in range(self.ranks)]
        self.defaults = [pipeline.profile.default_clock_mhz(order[0].stage) for order in orders]
        self.steps = script(pipeline)
        self.of_rank: list[list[int]] = [[] for _ in orders]
        for number, step in enumerate(self.steps):
            self.of_rank[step.rank].append(number)
        self.previous = [0] * len(self.steps)
        """The step before on the same rank; for its first, its last (of the iteration before)."""
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
        if iterations < 3:
            raise ValueError(f"iterations is {iterations}; a steady period shows after 3 at the earliest.")
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
        for rank, (row, of) in enumerate(zip(clocks, self.of_rank, strict=True)):
            if len(row) != len(of):
                raise ValueError(f"rank {rank} has {len(of)} instructions, but {len(row)} clocks are given.")
        return [[clock or default for clock in row] for row, default in zip(clocks, self.defaults, strict=True)]


class _Gpu:
    """The clock of one rank's GPU over time."""

    __slots__ = ("_draws", "_lags", "_profile", "clock", "dwell", "last_set", "pending", "sets", "target")

    def __init__(self, clock: int, lags: LagTable, draws: Random | None, rules: Referee) -> None:
        self.clock = self.target = clock
        self.pending: deque[tuple[float, int]] = deque()
        self.sets, self.last_set, self.dwell = 0, -math.inf, math.inf
        self._lags, self._draws, self._profile = lags, draws, rules.profile

    def set(self, at: float, target: int) -> None:
        if target == self.target:
            return
        begins = max(at, self.pending[-1][0]) if self.pending else at
        self.pending.append((begins + self._lags.draw_s(target, target > self.target, self._draws), target))
        self.target = target
        self.sets += 1
        self.dwell, self.last_set = min(self.dwell, begins - self.last_set), begins

    def settle(self, now: float) -> None:
        """Forget what lies before now."""
        while self.pending and self.pending[0][0] <= now:
            self.clock = self.pending.popleft()[1]

    def segments(self) -> list[tuple[float, int]]:
        """(until, clock) since it was settled; the last lasts forever."""
        clocks = [self.clock, *(clock for _, clock in self.pending)]
        return list(zip([*(at for at, _ in self.pending), math.inf], clocks, strict=True))

    def wait_j(self, begin: float, end: float) -> float:
        self.settle(begin)
        joules, now = 0.0, begin
        for until, clock in self.segments():
            until = min(until, end)
            joules += self._profile.wait_power_w(clock) * (until - now)
            now = until
            if now >= end:
                break
        return joules


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
        draws = None if seed is None else Random(seed)
        self._gpus = [_Gpu(default, lags, draws, rules) for default in rules.defaults]
        self._firsts = {of[0]: rank for rank, of in enumerate(rules.of_rank)}
        self._lasts = {of[-1]: rank for rank, of in enumerate(rules.of_rank)}
        self._next_target = [row[0] for row in targets]
        for gpu, target in zip(self._gpus, self._next_target, strict=True):
            gpu.set(0.0, target)
        # For each step: (clock, seconds, joules, the clock after it, when to set that where it is higher).
        self._score: list[tuple[int, float, float, int, float]] = [(0, 0.0, 0.0, 0, 0.0)] * len(rules.steps)
        for rank, (row, of) in enumerate(zip(targets, rules.of_rank, strict=True)):
            tail = rules.tails[rank]
            returns = tail is not None and tail > TAIL_LAGS * lags.p95_up_s
            for here, after, number in zip(
                row, [*row[1:], rules.defaults[rank] if returns else row[0]], of, strict=True
            ):
                seconds, joules = rules.at(rules.steps[number].instruction, here)
                self._score[number] = here, seconds, joules, after, max(0.0, seconds - lags.of(after).p95_up_s)
        self._ready = [0.0] * rules.ranks
        self.count = 0
        self._begins: list[list[float]] = []
        self._ends: list[list[float]] = []
        self._joules: list[list[float]] = []
        self._wait_j: list[list[float]] = []
        self._tail_j: list[list[float]] = []
        self._finished: list[float] = []
        self._sets: list[int] = []

    def iterate(self) -> None:
        """Execute one more iteration on every rank."""
        rules, gpus, ready_of, score, stretch = self._rules, self._gpus, self._ready, self._score, self._stretch
        begins, ends, spent = ([0.0] * len(score) for _ in range(3))
        wait_j, tail_j = [0.0] * rules.ranks, [0.0] * rules.ranks
        for number, (one, rank, overhead, inputs) in enumerate(rules.steps):
            gpu, begin = gpus[rank], ready_of[rank]
            for source, delay in inputs:
                if (arrival := ends[source] + delay) > begin:
                    begin = arrival
            begin += overhead
            if self._pace_s is not None and self._begins and number in self._firsts:
                begin = max(begin, self._begins[-1][number] + self._pace_s)
            if begin > ready_of[rank]:
                wait_j[rank] += gpu.wait_j(ready_of[rank], begin)
            if gpu.pending:
                gpu.settle(begin)
            here, seconds, joules, after, raise_s = score[number]
            factor = 1.0 if stretch is None else stretch(self.count, one)
            if gpu.pending or gpu.clock != here:
                end, joules = self._work(one, gpu, begin, factor)
            else:
                end, joules = begin + seconds * factor, joules * factor
            if after > here:
                gpu.set(min(begin + raise_s, end), after)
                if gpu.pending and gpu.pending[0][0] < end:
                    end, joules = self._work(one, gpu, begin, factor)
            elif after < here:
                gpu.set(end, after)
            begins[number], ends[number], spent[number] = begin, end, joules
            ready_of[rank] = end
            if number in self._lasts and (tail := rules.tails[rank]) is not None:
                tail_j[rank] = gpu.wait_j(end, end + tail)
                gpu.set(end + tail, self._next_target[rank])
                ready_of[rank] = end + tail
        self.count += 1
        self._begins.append(begins)
        self._ends.append(ends)
        self._joules.append(spent)
        self._wait_j.append(wait_j)
        self._tail_j.append(tail_j)
        self._finished.append(max(ready_of))
        self._sets.append(sum(gpu.sets for gpu in gpus))
        if self.count == 1:  # the way into the first iteration is no switch of a steady one
            for gpu in gpus:
                gpu.dwell = math.inf

    def _work(self, one: Instruction, gpu: _Gpu, begin: float, factor: float) -> tuple[float, float]:
        """(end, joules) of an instruction that begins now, over all clocks that it meets."""
        left, now, spent = 1.0, begin, 0.0
        for until, clock in gpu.segments():
            seconds, joules = self._rules.at(one, clock)
            share = min(left, (until - now) / (seconds * factor))
            spent += share * joules * factor
            if share == left:
                return now + left * seconds * factor, spent
            left, now = left - share, until
        raise AssertionError("the last segment lasts forever")

    def cycle(self) -> int | None:
        """How many iterations repeat: the least number after which every rank starts later by the same time."""
        for cycle in range(1, min(_LONGEST_CYCLE, self.count - 2) + 1):
            shifts = self._shifts(cycle)
            if max(shifts) - min(shifts) < _SAME_S:
                return cycle
        return None

    def _shifts(self, span: int) -> list[float]:
        return [self._begins[-1][first] - self._begins[-1 - span][first] for first in self._firsts]

    def report(self, span: int) -> Simulation:
        """The figures of the last `span` whole iterations, and the events of the last but one."""
        rules, begins, ends, joules = self._rules, self._begins[-2], self._ends[-2], self._joules[-2]
        slack, critical = self._slack()
        origin = min(begins[first] for first in self._firsts)
        energy, power = [], []
        for rank, (gpus, of) in enumerate(zip(rules.gpus, rules.of_rank, strict=True)):
            compute = sum(sum(row[number] for number in of) for row in self._joules[-1 - span : -1]) / span
            waits = sum(row[rank] for row in self._wait_j[-span:]) / span  # before an instruction: one iteration on
            tail = sum(row[rank] for row in self._tail_j[-1 - span : -1]) / span
            busy = sum(
                sum(e[n] - b[n] for n in of)
                for b, e in zip(self._begins[-1 - span : -1], self._ends[-1 - span : -1], strict=True)
            )
            idle = max(self._shifts(span)) - busy
            energy.append(RankEnergy(compute * gpus, waits * gpus, tail * gpus))
            power.append((waits + tail) * span / idle if idle > _SAME_S else math.nan)
        return Simulation(
            iteration_time_s=max(self._shifts(span)) / span,
            ranks=tuple(
                tuple(
                    Event(
                        rules.steps[n].instruction, begins[n] - origin, ends[n] - begins[n], joules[n] * gpus, slack[n]
                    )
                    for n in of
                )
                for gpus, of in zip(rules.gpus, rules.of_rank, strict=True)
            ),
            energy=tuple(energy),
            critical_path=tuple(rules.steps[n].instruction for n in sorted(critical, key=lambda n: (begins[n], n))),
            switches=self._sets[-2] - self._sets[-3],
            iteration_times_s=tuple(
                after - before for before, after in zip(self._finished, self._finished[1:], strict=False)
            ),
            least_dwell_s=min(gpu.dwell for gpu in self._gpus),
            wait_power_w=tuple(power),
        )

    def _slack(self) -> tuple[list[float], set[int]]:
        """Of the last iteration but one: each step's slack until the last end of all, and the steps that make it."""
        rules = self._rules
        final = self._finished[-1]
        at, cause = -1, -1  # the last step of all
        slack = [math.inf] * len(rules.steps)
        for last, rank in self._lasts.items():
            slack[last] = final - self._ready[rank]
            if slack[last] == 0.0 and cause < 0:
                cause = last
        critical: set[int] = set()
        for back in (-1, -2):
            begins, ends = self._begins[back], self._ends[back]
            before = [math.inf] * len(rules.steps)
            for number in range(len(rules.steps) - 1, -1, -1):
                _, rank, overhead, inputs = rules.steps[number]
                ready = begins[number] - overhead
                previous = rules.previous[number]
                causes = [(ready - (ends[source] + delay), source, back) for source, delay in inputs]
                if number in self._firsts:
                    tail = rules.tails[rank] or 0.0
                    margin = ready - (self._ends[back - 1][previous] + tail)
                    before[previous] = slack[number] + margin
                    causes.append((margin, previous, back - 1))
                else:
                    causes.append((ready - ends[previous], previous, back))
                for margin, source, when in causes:
                    if when == back and slack[number] + margin < slack[source]:
                        slack[source] = slack[number] + margin
                if (at, cause) == (back, number):
                    if back == -2:
                        critical.add(number)
                    _, cause, at = min(causes)
            if back == -1:
                slack = before
        return slack, critical
