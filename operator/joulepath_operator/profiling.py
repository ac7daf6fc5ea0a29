"""What the ranks measured, as a profile of the pipeline, and the fixed delays that no clock changes.

Powers and times are averaged over data-parallel replicas and tensor-parallel peers; energy is power x time.

Delays come from the timelines at default clocks. Each rank counts from the begin of its own iteration, so that two
ranks' times differ by an unknown offset. The least lag of a forward edge is delay + offset, that of the backward edge
delay - offset: half the sum is the delay, half the difference the offset, and no wall clock is compared. With the
offsets known, an instruction that waited for nothing but its predecessor shows the host's own gap between two
instructions; what a stage's edges have of that gap in them is taken off the delay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import hypot, sqrt
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
from joulepath_operator.gang import Gang
from joulepath_operator.planning import Delays, Edge
from joulepath_operator.sweep import label_kind

K = TypeVar("K")


def build_profile(
    gang: Gang, topology: Topology, clocks_mhz: Iterable[int], delays: Delays, job: str
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
        return label_kind(self.label)

    @property
    def microbatch(self) -> str:
        return self.label.rpartition(":")[2][1:]


def _pipeline_delays(ranks: Sequence[RankReport], stages: int) -> Delays:
    seen: dict[tuple[int, str, str], _Seen] = {}
    rank_of = {stage: rank.rank for rank in ranks for stage in rank.stages}
    for rank in ranks:
        for told in rank.timeline:
            entry = _Seen(told.instruction, told.stage, told.begin_s, told.end_s)
            seen[entry.stage, entry.kind, entry.microbatch] = entry
    lag_s: dict[int, float] = {}
    offset_s = {rank_of[0]: 0.0} if 0 in rank_of else {}
    for stage in range(stages - 1):
        if rank_of.get(stage) == rank_of.get(stage + 1) or rank_of.get(stage) not in offset_s:
            continue
        forward = _least_lag_s(seen, stage, stage + 1, "F")
        backward = _least_lag_s(seen, stage + 1, stage, "BI")
        if forward is None or backward is None:
            continue
        lag_s[stage] = (forward + backward) / 2
        # On the receiver's clock a forward edge is lag + offset late: what to add to come back to the sender's clock.
        offset_s.setdefault(rank_of[stage + 1], offset_s[rank_of[stage]] - (forward - backward) / 2)
    for (stage, _, _), one in seen.items():
        shift = offset_s.get(rank_of.get(stage, -1), 0.0)
        one.begin_s, one.end_s = one.begin_s + shift, one.end_s + shift
    overheads = _overheads_s(ranks, seen, lag_s)
    transfers: dict[Edge, float] = {}
    for stage, lag in lag_s.items():
        backward_kind = "B" if any((stage, "B") == key[:2] for key in seen) else "I"
        gap = (overheads.get((stage + 1, "F"), 0.0) + overheads.get((stage, backward_kind), 0.0)) / 2
        delay = max(0.0, lag - gap)
        transfers[stage, stage + 1, "F"] = transfers[stage + 1, stage, backward_kind] = delay
    # A rank's tail is counted once, on its last stage, however many stages it runs.
    tails = {max(rank.stages): rank.tail_s + _head_s(rank, overheads) for rank in ranks}
    return Delays(transfers, overheads, tails)


def _head_s(rank: RankReport, overheads_s: Mapping[tuple[int, str], float]) -> float:
    """Seconds from the begin of an iteration to its first instruction, on the first stage: on others it is a wait."""
    if 0 not in rank.stages or not rank.timeline:
        return 0.0
    first = min(rank.timeline, key=lambda one: one.begin_s)
    return max(0.0, first.begin_s - overheads_s.get((first.stage, label_kind(first.instruction)), 0.0))


def _least_lag_s(seen: Mapping[tuple[int, str, str], _Seen], source: int, target: int, kinds: str) -> float | None:
    """Least time from an instruction's end to its dependent's begin on the next stage, each on its own clock."""
    lags = []
    for (stage, kind, microbatch), one in seen.items():
        if stage == source and kind in kinds:
            dependents = (seen.get((target, other, microbatch)) for other in kinds)
            lags += [dependent.begin_s - one.end_s for dependent in dependents if dependent is not None]
    return min(lags, default=None)


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
    label = one.instruction.rpartition(":")[2]
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
        for label in rank.order:
            stage = int(label.partition(":")[0]) if ":" in label else rank.stages[0]
            if one := measured.get((stage, label_kind(label))):
                total += one.power_w * one.time_s
                busy_s += one.time_s
        total += wait_w * max(0.0, rank.control_time_s - busy_s)
    return total


def _mean(maps: Sequence[Mapping[K, float]]) -> dict[K, float]:
    keys = {key for one in maps for key in one}
    return {key: fmean(one[key] for one in maps if key in one) for key in keys}
