"""What the ranks measured, as a profile of the pipeline, and the fixed delays that no clock changes.

Powers and times are averaged over data-parallel replicas and tensor-parallel peers; energy is power x time.

Delays come from the timelines at default clocks. Each rank counts from the begin of its own iteration, so that two
ranks' times differ by an unknown offset. The least lag from one rank to another is delay + offset, that of the way back
delay - offset: half the sum is the delay, half the difference the offset, and no wall clock is compared. With the
offsets known, an instruction that waited for nothing but its predecessor shows the host's own gap between two
instructions; what a stage's edges have of that gap in them is taken off the delay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import hypot, inf, sqrt
from statistics import fmean, median
from typing import TypeVar

from joulepath_crds import (
    BlockingPower,
    EnergyProfileSpec,
    InstructionMeasurement,
    InstructionTime,
    KindProfile,
    ProfilePoint,
    RankReport,
    StageProfile,
    Topology,
    Transfer,
)
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.request import Delays, Edge
from joulepath_operator.figures.order import bare, executed, kind_of, stage_of

K = TypeVar("K")


def build_profile(
    gang: Gang, topology: Topology, clocks_mhz: Iterable[int], delays: Delays, job: str, noise_s: float = 0.0
) -> EnergyProfileSpec:
    """The profile of a pipeline from what the sweep measured at these clocks (0: default clocks); energies per GPU."""
    actual = {clock or topology.default_clock_mhz: clock for clock in sorted(clocks_mhz, reverse=True)}
    stages = []
    for stage in range(topology.stages):
        peers = [rank for rank in gang.ranks if stage in rank.stages]
        kinds = sorted({one.kind for rank in peers for one in rank.instructions if one.stage == stage})
        profiles = []
        for kind in kinds:
            points = tuple(
                _point(clock, found)
                for clock, held in sorted(actual.items(), reverse=True)
                if (found := _measurements(peers, stage, kind, held))
            )
            profiles.append(KindProfile(kind=kind, points=points))
        stages.append(StageProfile(stage=stage, tail_s=delays.tails_s.get(stage, 0.0), kinds=tuple(profiles)))
    pipelines = topology.data_parallel
    return EnergyProfileSpec(
        topology=topology,
        stages=tuple(stages),
        transfers=tuple(
            Transfer(from_stage=source, to_stage=target, kind=kind, delay_s=delay)
            for (source, target, kind), delay in sorted(delays.transfers_s.items())
        ),
        blocking_power=_blocking_power(gang.ranks, actual),
        iteration_time_s=gang.control_time_s,
        iteration_time_noise_s=noise_s,
        energy_per_iteration_j=_default_energy_j(gang.ranks) / pipelines,
        lag=gang.lag(),
        job=job,
    )


def measure_delays(gang: Gang, topology: Topology) -> Delays:
    """Transfer delays, host gaps and tails from the timelines at default clocks, the mean of all pipelines."""
    each = [
        _pipeline_delays(gang.pipeline(data, tensor), topology.stages)
        for data in range(topology.data_parallel)
        for tensor in range(topology.tensor_parallel)
    ]
    return Delays(
        transfers_s=_mean([one.transfers_s for one in each]),
        overheads_s=_mean([one.overheads_s for one in each]),
        tails_s=_mean([one.tails_s for one in each]),
    )


@dataclass(slots=True)
class _Seen:
    """One instruction on the pipeline's common clock, once its rank's offset is known."""

    label: str
    stage: int
    begin_s: float
    end_s: float

    @property
    def kind(self) -> str:
        return kind_of(self.label)

    @property
    def microbatch(self) -> str:
        return bare(self.label)[1:]


def _pipeline_delays(ranks: Sequence[RankReport], stages: int) -> Delays:
    seen: dict[tuple[int, str, str], _Seen] = {}
    rank_of = {stage: rank.rank for rank in ranks for stage in rank.stages}
    for rank in ranks:
        for told in rank.timeline:
            entry = _Seen(told.instruction, told.stage, told.begin_s, told.end_s)
            seen[entry.stage, entry.kind, entry.microbatch] = entry
    offset_s, delay_s = _clocks_and_delays(_least_lags_s(seen, rank_of), rank_of.get(0))
    for (stage, _, _), one in seen.items():
        shift = offset_s.get(rank_of.get(stage, -1), 0.0)
        one.begin_s, one.end_s = one.begin_s + shift, one.end_s + shift
    lag_s = {
        stage: delay_s[pair]
        for stage in range(stages - 1)
        if (pair := _pair(rank_of.get(stage, -1), rank_of.get(stage + 1, -1))) in delay_s
    }
    overheads = _overheads_s(ranks, seen, lag_s)
    run = {(stage, kind) for stage, kind, _ in seen}
    transfers: dict[Edge, float] = {}
    for stage, lag in lag_s.items():
        backward = max(overheads.get((stage, kind), 0.0) for kind in "BI")
        delay = max(0.0, lag - (overheads.get((stage + 1, "F"), 0.0) + backward) / 2)
        transfers[stage, stage + 1, "F"] = delay
        # A stage may run some of its backwards whole and some in halves: whatever it runs sends its gradient on.
        transfers |= {(stage + 1, stage, kind): delay for kind in "BI" if (stage + 1, kind) in run}
    # A rank's tail is counted once, on its last stage, however many stages it runs.
    tails = {max(rank.stages): rank.tail_s + _head_s(rank, overheads) for rank in ranks}
    return Delays(transfers, overheads, tails)


def _head_s(rank: RankReport, overheads_s: Mapping[tuple[int, str], float]) -> float:
    """Seconds from the begin of an iteration to its first instruction, on the first stage: on others it is a wait."""
    if 0 not in rank.stages or not rank.timeline:
        return 0.0
    first = min(rank.timeline, key=lambda one: one.begin_s)
    return max(0.0, first.begin_s - overheads_s.get((first.stage, kind_of(first.instruction)), 0.0))


def _pair(one: int, other: int) -> tuple[int, int]:
    return min(one, other), max(one, other)


def _least_lags_s(
    seen: Mapping[tuple[int, str, str], _Seen], rank_of: Mapping[int, int]
) -> dict[tuple[int, int], float]:
    """Least time from an instruction's end on one rank to its dependent's begin on another, each on its own clock."""
    least: dict[tuple[int, int], float] = {}
    for (stage, kind, microbatch), one in seen.items():
        to, kinds = (stage + 1, "F") if kind == "F" else (stage - 1, "BI" if kind in "BI" else "")
        for dependent in (seen.get((to, other, microbatch)) for other in kinds):
            if dependent is not None and rank_of[stage] != rank_of[to]:
                key = rank_of[stage], rank_of[to]
                least[key] = min(least.get(key, inf), dependent.begin_s - one.end_s)
    return least


def _clocks_and_delays(
    lags_s: Mapping[tuple[int, int], float], first: int | None
) -> tuple[dict[int, float], dict[tuple[int, int], float]]:
    """What to add to each rank's clock to come to that of the first, and the delay of each pair of ranks.

    Half the sum of a pair's least lags is its delay if in both directions somebody waited for nothing else, and more
    where the receiver always had other work: the ranks' clocks are joined by the pairs with the least. With the clocks
    known, the delay of the others is the lesser of the two lags.
    """
    both = {pair: (lag + lags_s[pair[::-1]]) / 2 for pair, lag in lags_s.items() if pair[::-1] in lags_s}
    offset_s = {} if first is None else {first: 0.0}
    while reach := [(mean, pair) for pair, mean in both.items() if pair[0] in offset_s and pair[1] not in offset_s]:
        mean, (known, new) = min(reach)
        offset_s[new] = offset_s[known] + mean - lags_s[known, new]
    delay_s: dict[tuple[int, int], float] = {}
    for (source, target), lag in lags_s.items():
        if source in offset_s and target in offset_s:
            pair = _pair(source, target)
            delay_s[pair] = min(delay_s.get(pair, inf), lag + offset_s[target] - offset_s[source])
    return offset_s, delay_s


def _overheads_s(
    ranks: Sequence[RankReport], seen: Mapping[tuple[int, str, str], _Seen], lag_s: Mapping[int, float]
) -> dict[tuple[int, str], float]:
    gaps: dict[tuple[int, str], list[float]] = {}
    for rank in ranks:
        ordered = sorted((_entry(seen, one) for one in rank.timeline), key=lambda one: one.begin_s)
        for before, one in pairwise(ordered):
            arrivals = []
            if one.kind == "F" and (source := seen.get((one.stage - 1, "F", one.microbatch))):
                arrivals = [source.end_s + lag_s.get(one.stage - 1, 0.0)]
            elif one.kind in "BI":
                sources = [seen.get((one.stage + 1, kind, one.microbatch)) for kind in "BI"]
                arrivals = [source.end_s + lag_s.get(one.stage, 0.0) for source in sources if source]
            if all(arrival <= before.end_s for arrival in arrivals):
                gaps.setdefault((one.stage, one.kind), []).append(max(0.0, one.begin_s - before.end_s))
    return {key: median(values) for key, values in gaps.items()}


def _entry(seen: Mapping[tuple[int, str, str], _Seen], one: InstructionTime) -> _Seen:
    label = bare(one.instruction)
    return seen[one.stage, label[:1], label[1:]]


def _measurements(ranks: Sequence[RankReport], stage: int, kind: str, clock: int) -> list[InstructionMeasurement]:
    return [
        one
        for rank in ranks
        for one in rank.instructions
        if one.samples and (one.stage, one.kind, one.clock_mhz) == (stage, kind, clock)
    ]


def _point(clock_mhz: int, found: Sequence[InstructionMeasurement]) -> ProfilePoint:
    energy_error = [
        hypot(one.power_w * one.time_standard_error_s, one.time_s * one.power_standard_error_w) for one in found
    ]
    return ProfilePoint(
        clock_mhz=clock_mhz,
        time_s=fmean(one.time_s for one in found),
        time_standard_error_s=sqrt(sum(one.time_standard_error_s**2 for one in found)) / len(found),
        energy_j=fmean(one.power_w * one.time_s for one in found),
        energy_standard_error_j=hypot(*energy_error) / len(found),
        samples=sum(one.samples for one in found),
    )


def _blocking_power(ranks: Sequence[RankReport], actual: Mapping[int, int]) -> tuple[BlockingPower, ...]:
    powers = []
    for clock, held in sorted(actual.items(), reverse=True):
        found = [one.power_w for rank in ranks for one in rank.waits if one.clock_mhz == held]
        if found:
            powers.append(BlockingPower(clock_mhz=clock, power_w=fmean(found)))
    return tuple(powers)


def _default_energy_j(ranks: Sequence[RankReport]) -> float:
    """Joules of an iteration at default clocks, all ranks: measured power of work and of the waits around it."""
    total = 0.0
    for rank in ranks:
        measured = {(one.stage, one.kind): one for one in rank.instructions if one.clock_mhz == 0}
        wait_w = next((one.power_w for one in rank.waits if one.clock_mhz == 0), 0.0)
        busy_s = 0.0
        for label in executed(rank):
            if one := measured.get((stage_of(label), kind_of(label))):
                total += one.power_w * one.time_s
                busy_s += one.time_s
        total += wait_w * max(0.0, rank.control_time_s - busy_s)
    return total


def _mean(maps: Sequence[Mapping[K, float]]) -> dict[K, float]:
    keys = {key for one in maps for key in one}
    return {key: fmean(one[key] for one in maps if key in one) for key in keys}
