"""The referee: replays a plan as the GPUs and the agent would run it, and believes nothing else.

It shares no code with the solver. Ranks execute their orders, messages travel, iterations follow back to back until
they repeat; that period is the iteration time. With lags it replays the agent's rule, *raise early, lower late*:

- a lower clock for the next instruction is set when the current one ends, and is in force a lag later;
- a higher one is set at begin + predicted duration - p95 lag of the current one, never before its begin and never
  after its end, so that it is in force when the next begins;
- a second set waits until the first is in force.

An instruction that runs at several clocks progresses through them piece by piece. A wait costs the blocking power of
the clock in force.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from joulepath_planner.pipeline import Pipeline
from joulepath_planner.schedule import Instruction, ScheduleError

Clocks = Sequence[Sequence[int | None]]
"""Per rank, in its order, the clock of each instruction in MHz; None is the default clock."""

TAIL_LAGS = 4
"""A tail of at most so many p95 lags doesn't return to default clocks; agents keep the same rule."""
_SAME_S = 1e-9
_MOST_ITERATIONS = 32
_LONGEST_CYCLE = 4


@dataclass(frozen=True, slots=True)
class LagTable:
    """Seconds from a set to the clock in force, for a raise and for a lowering: what it takes, and its p95."""

    up_s: float
    down_s: float
    p95_up_s: float
    p95_down_s: float

    def __post_init__(self) -> None:
        for name in ("up_s", "down_s", "p95_up_s", "p95_down_s"):
            if not (math.isfinite(value := getattr(self, name)) and value >= 0):
                raise ValueError(f"{name} is {value}; a lag is a finite number of seconds, 0 or more.")

    @classmethod
    def constant(cls, lag_s: float) -> LagTable:
        return cls(lag_s, lag_s, lag_s, lag_s)

    @property
    def worst_p95_s(self) -> float:
        return max(self.p95_up_s, self.p95_down_s)


NO_LAG = LagTable.constant(0.0)


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
    """Joules of one rank in one iteration by cause; the tail (R and O) is charged at blocking power."""

    compute_j: float
    wait_j: float
    tail_j: float

    @property
    def total_j(self) -> float:
        return self.compute_j + self.wait_j + self.tail_j


@dataclass(frozen=True, slots=True)
class Simulation:
    """A steady iteration. iteration_time_s is the period; switches counts the sets of all ranks in an iteration."""

    iteration_time_s: float
    ranks: tuple[tuple[Event, ...], ...]
    energy: tuple[RankEnergy, ...]
    critical_path: tuple[Instruction, ...]
    switches: int

    @property
    def energy_j(self) -> float:
        return sum(rank.total_j for rank in self.energy)


def simulate(
    pipeline: Pipeline, clocks: Clocks | None = None, lags: LagTable | None = None, iterations: int = 3
) -> Simulation:
    """Replay `clocks` (None: default clocks throughout) for at least `iterations` (3 or more), until they repeat."""
    if iterations < 3:
        raise ValueError(f"iterations is {iterations}; a steady period shows after 3 at the earliest.")
    replay = _Replay(pipeline, clocks, lags or NO_LAG)
    count = iterations
    replay.run(count)
    while (cycle := _cycle(replay.firsts, count)) is None and count < _MOST_ITERATIONS:
        count += 1
        replay.run(count)
    return replay.report(count, cycle)


def _cycle(firsts: list[list[float]], count: int) -> int | None:
    """How many iterations repeat: the least number after which every rank starts later by the same time."""
    for cycle in range(1, min(_LONGEST_CYCLE, count - 2) + 1):
        shifts = [starts[count - 1] - starts[count - 1 - cycle] for starts in firsts]
        if max(shifts) - min(shifts) < _SAME_S:
            return cycle
    return None


@dataclass(slots=True)
class _Run:
    """One execution of an instruction; causes are (run, how much earlier that one was ready than needed)."""

    iteration: int
    instruction: Instruction
    begin: float
    end: float
    joules: float
    wait_j: float
    causes: list[tuple[int, float]]


class _Gpu:
    """The clock of one rank's GPU over time."""

    __slots__ = ("_lags", "clock", "pending", "sets", "target")

    def __init__(self, clock: int, lags: LagTable) -> None:
        self.clock = clock
        self.target = clock
        self.pending: deque[tuple[float, int]] = deque()
        self.sets = 0
        self._lags = lags

    def set(self, at: float, target: int) -> None:
        if target == self.target:
            return
        lag = self._lags.up_s if target > self.target else self._lags.down_s
        free = self.pending[-1][0] if self.pending else at
        self.pending.append((max(at, free) + lag, target))
        self.target = target
        self.sets += 1

    def segments(self, begin: float) -> list[tuple[float, int]]:
        """(until, clock) from `begin` on; the last lasts forever. Forgets what lies before."""
        while self.pending and self.pending[0][0] <= begin:
            self.clock = self.pending.popleft()[1]
        clocks = [self.clock, *(clock for _, clock in self.pending)]
        return list(zip([*(at for at, _ in self.pending), math.inf], clocks, strict=True))


class _Replay:
    def __init__(self, pipeline: Pipeline, clocks: Clocks | None, lags: LagTable) -> None:
        self._pipeline, self._profile, self._lags = pipeline, pipeline.profile, lags
        self._orders = pipeline.schedule.orders
        self._last_stage = pipeline.schedule.stages - 1
        self._rank_of = {one.stage: rank for rank, order in enumerate(self._orders) for one in order}
        self._tails = [pipeline.rank_tail_s(rank) for rank in range(pipeline.ranks)]
        defaults = [self._profile.default_clock_mhz(order[0].stage) for order in self._orders]
        self._targets = [
            _targets(rank, order, None if clocks is None else clocks[rank], default)
            for rank, (order, default) in enumerate(zip(self._orders, defaults, strict=True))
        ]
        self._defaults = defaults
        self._gpus = [_Gpu(default, lags) for default in defaults]
        for gpu, targets in zip(self._gpus, self._targets, strict=True):
            gpu.set(0.0, targets[0])
        self._cursor = [0] * pipeline.ranks
        self._ready = [0.0] * pipeline.ranks
        self._previous: list[int | None] = [None] * pipeline.ranks
        self._mail: dict[tuple[int, Instruction], tuple[float, int]] = {}
        self._cost: dict[tuple[int, str, int], tuple[float, float]] = {}
        self._tail_j = [0.0] * pipeline.ranks
        self.runs: list[_Run] = []
        self.firsts: list[list[float]] = [[] for _ in self._orders]
        self.sets_before: list[list[int]] = [[] for _ in self._orders]

    def run(self, iterations: int) -> None:
        """Execute until every rank has ended this many iterations."""
        awake = deque(range(len(self._orders)))
        while awake:
            rank = awake.popleft()
            order = self._orders[rank]
            while self._cursor[rank] < iterations * len(order):
                iteration, index = divmod(self._cursor[rank], len(order))
                inputs = self._inputs(order[index], iteration)
                if inputs is None:
                    break
                woken = self._execute(rank, iteration, index, inputs)
                if woken is not None and woken != rank:
                    awake.append(woken)
        if stuck := [r for r, order in enumerate(self._orders) if self._cursor[r] < iterations * len(order)]:
            rank = stuck[0]
            one = self._orders[rank][self._cursor[rank] % len(self._orders[rank])]
            raise ScheduleError(f"rank {rank} waits forever for the input of {one.label}.")

    def _inputs(self, one: Instruction, iteration: int) -> list[tuple[float, int]] | None:
        """(arrival, sending run) of what must come from other stages; None if it has not all come."""
        if one.kind == "W" or one.stage == (0 if one.kind == "F" else self._last_stage):
            return []
        mail = self._mail.get((iteration, _address(one)))
        return None if mail is None else [mail]

    def _execute(self, rank: int, iteration: int, index: int, inputs: list[tuple[float, int]]) -> int | None:
        one, gpu, ready = self._orders[rank][index], self._gpus[rank], self._ready[rank]
        overhead = self._pipeline.overhead(one.stage, one.kind)
        begin = max([ready, *(arrival for arrival, _ in inputs)]) + overhead
        wait_j = self._wait(gpu, ready, begin)
        here, after = self._targets[rank][index], self._after(rank, index)
        end, joules = self._work(one, gpu, begin)
        if after > here:
            at = max(begin, begin + self._at(one, here)[0] - self._lags.p95_up_s)
            gpu.set(min(at, end), after)
            end, joules = self._work(one, gpu, begin)
        elif after < here:
            gpu.set(end, after)
        causes = [(sender, begin - overhead - arrival) for arrival, sender in inputs]
        if (previous := self._previous[rank]) is not None:
            causes.append((previous, begin - overhead - ready))
        number = len(self.runs)
        self.runs.append(_Run(iteration, one, begin, end, joules, wait_j, causes))
        self._previous[rank] = number
        self._cursor[rank] += 1
        if index == 0:
            self.firsts[rank].append(begin)
            self.sets_before[rank].append(gpu.sets)
        self._ready[rank] = self._finish(rank, end) if index == len(self._orders[rank]) - 1 else end
        return self._send(one, iteration, end, number)

    def _after(self, rank: int, index: int) -> int:
        """The clock wanted after an instruction: the next one's, or the default one for the tail."""
        if index < len(self._orders[rank]) - 1:
            return self._targets[rank][index + 1]
        return self._targets[rank][0] if self._holds_in_tail(rank) else self._defaults[rank]

    def _holds_in_tail(self, rank: int) -> bool:
        """Two more switches for a tail of a few lags would cost more than default clocks in it are worth."""
        tail = self._tails[rank]
        return tail is None or tail <= TAIL_LAGS * self._lags.p95_up_s

    def _finish(self, rank: int, end: float) -> float:
        """The tail, if the rank has one; returns when the rank is free again."""
        tail = self._tails[rank]
        if tail is None:
            return end
        gpu = self._gpus[rank]
        self._tail_j[rank] = self._wait(gpu, end, end + tail)
        gpu.set(end + tail, self._targets[rank][0])
        return end + tail

    def _wait(self, gpu: _Gpu, begin: float, end: float) -> float:
        joules, now = 0.0, begin
        for until, clock in gpu.segments(begin):
            joules += self._profile.wait_power_w(clock) * max(0.0, min(until, end) - now)
            now = max(now, min(until, end))
            if until >= end:
                break
        return joules

    def _work(self, one: Instruction, gpu: _Gpu, begin: float) -> tuple[float, float]:
        """(end, joules) of an instruction that begins now, over all clocks that it meets."""
        left, now, joules = 1.0, begin, 0.0
        for until, clock in gpu.segments(begin):
            seconds, energy = self._at(one, clock)
            share = min(left, (until - now) / seconds)
            joules += share * energy
            if share == left:
                return now + left * seconds, joules
            left, now = left - share, until
        raise AssertionError("the last segment lasts forever")

    def _at(self, one: Instruction, clock: int) -> tuple[float, float]:
        key = one.stage, one.kind, clock
        if key not in self._cost:
            self._cost[key] = self._profile.at(*key)
        return self._cost[key]

    def _send(self, one: Instruction, iteration: int, end: float, number: int) -> int | None:
        step = {"F": 1, "B": -1, "I": -1}.get(one.kind)
        if step is None or not 0 <= (stage := one.stage + step) <= self._last_stage:
            return None
        arrival = end + self._pipeline.transfer_s.get((one.stage, stage, one.kind), 0.0)
        self._mail[iteration, _address(Instruction(stage, one.kind, one.microbatch))] = arrival, number
        return self._rank_of[stage]

    def report(self, count: int, cycle: int | None) -> Simulation:
        span = cycle or count // 2
        shown = count - 2
        period = max(starts[count - 1] - starts[count - 1 - span] for starts in self.firsts) / span
        critical, slack = self._critical(count)
        origin = self.firsts[0][shown]
        compute, wait = [0.0] * len(self._orders), [0.0] * len(self._orders)
        events: list[list[Event]] = [[] for _ in self._orders]
        path = []
        for number, run in enumerate(self.runs):
            rank = self._rank_of[run.instruction.stage]
            if count - 1 - span <= run.iteration < count - 1:
                compute[rank] += run.joules / span
            if count - span <= run.iteration < count:  # the wait before an instruction: one iteration on
                wait[rank] += run.wait_j / span
            if run.iteration == shown:
                events[rank].append(
                    Event(run.instruction, run.begin - origin, run.end - run.begin, run.joules, slack[number])
                )
                if number in critical:
                    path.append((run.begin, run.instruction))
        return Simulation(
            iteration_time_s=period,
            ranks=tuple(map(tuple, events)),
            energy=tuple(RankEnergy(*parts) for parts in zip(compute, wait, self._tail_j, strict=True)),
            critical_path=tuple(one for _, one in sorted(path)),
            switches=sum(sets[count - 1] - sets[count - 2] for sets in self.sets_before),
        )

    def _critical(self, count: int) -> tuple[set[int], list[float]]:
        """Runs on the path that ends last, and the slack of every run: what the last end leaves room for."""
        ends = {previous: self._ready[rank] for rank, previous in enumerate(self._previous) if previous is not None}
        final = max(ends.values())
        slack = [math.inf] * len(self.runs)
        for number, end in ends.items():
            slack[number] = final - end
        for number in range(len(self.runs) - 1, -1, -1):
            for cause, margin in self.runs[number].causes:
                slack[cause] = min(slack[cause], slack[number] + margin)
        cause_of_end: int | None = max(ends, key=lambda run: ends[run])
        critical: set[int] = set()
        while cause_of_end is not None:
            critical.add(cause_of_end)
            causes = self.runs[cause_of_end].causes
            cause_of_end = min(causes, key=lambda cause: cause[1])[0] if causes else None
        return critical, slack


def _address(receiver: Instruction) -> Instruction:
    """Gradients are awaited by B or I alike, whatever the sender calls them."""
    return Instruction(receiver.stage, "F" if receiver.kind == "F" else "B", receiver.microbatch)


def _targets(
    rank: int, order: Sequence[Instruction], clocks: Sequence[int | None] | None, default: int
) -> tuple[int, ...]:
    if clocks is None:
        return (default,) * len(order)
    if len(clocks) != len(order):
        raise ValueError(f"rank {rank} has {len(order)} instructions, but {len(clocks)} clocks are given.")
    return tuple(clock or default for clock in clocks)
