"""What the ranks measured, as a profile of the pipeline.

Powers and times are averaged over data-parallel replicas and tensor-parallel peers; energy is power x time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import hypot, sqrt
from statistics import fmean, median

from joulepath_crds import (
    BlockingPower,
    EnergyProfileSpec,
    InstructionMeasurement,
    JobPlanSpec,
    KindProfile,
    ProfilePoint,
    RankReport,
    StageProfile,
    Topology,
    Transfer,
)
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.request import Delays
from joulepath_operator.figures.joining import complete_blocks
from joulepath_operator.figures.order import counted
from joulepath_operator.figures.savings import LEAST_PAIRS, estimate

__all__ = ["build_profile", "default_energy_j", "iteration_noise_s", "seen_again", "with_delays"]


def build_profile(
    gang: Gang, topology: Topology, clocks_mhz: Iterable[int], delays: Delays, job: str, noise_s: float = 0.0
) -> EnergyProfileSpec:
    """The profile of a pipeline from what the sweep measured at these clocks (0: default clocks); energies per GPU.

    Clocks that were held above where the GPUs settle are left out: they ran at default clocks, which are measured as
    such.
    """
    default_mhz = gang.default_clock_mhz
    actual = {clock or default_mhz: clock for clock in sorted(clocks_mhz, reverse=True) if clock < default_mhz}
    found = defaultdict[tuple[int, str, int], list[InstructionMeasurement]](list)
    for one in (one for rank in gang.ranks for one in rank.instructions):
        found[one.stage, one.kind, one.clock_mhz].append(one)
    kinds = {stage: sorted({kind for at, kind, _ in found if at == stage}) for stage in range(topology.stages)}
    stages = tuple(
        StageProfile(
            stage=stage,
            kinds=tuple(
                KindProfile(
                    kind=kind,
                    points=tuple(
                        _point(clock, known)
                        for clock, held in sorted(actual.items(), reverse=True)
                        if (known := [one for one in found.get((stage, kind, held), ()) if one.known])
                    ),
                )
                for kind in kinds[stage]
            ),
        )
        for stage in range(topology.stages)
    )
    spec = EnergyProfileSpec(
        topology=topology,
        stages=stages,
        blocking_power=_blocking_power(gang.ranks, actual),
        iteration_time_s=gang.control_time_s,
        iteration_time_noise_s=noise_s,
        energy_per_iteration_j=default_energy_j(gang.ranks) / topology.data_parallel,
        lag=gang.lag(),
        job=job,
        driver=gang.driver,
        power_cap_w=gang.power_cap_w,
    )
    return with_delays(spec, delays)


def with_delays(profile: EnergyProfileSpec, delays: Delays) -> EnergyProfileSpec:
    """The profile with these delays in place of its own."""
    stages = tuple(
        stage.model_copy(update={"tail_s": delays.tails_s.get(stage.stage, 0.0)}) for stage in profile.stages
    )
    transfers = tuple(
        Transfer(from_stage=source, to_stage=target, kind=kind, delay_s=delay)
        for (source, target, kind), delay in sorted(delays.transfers_s.items())
    )
    return profile.model_copy(update={"stages": stages, "transfers": transfers})


def seen_again(profile: EnergyProfileSpec, gang: Gang, job: str) -> EnergyProfileSpec:
    """The same profile with what the ranks measure now; points that they know no more stay as they were, and so do
    delays."""
    top = {gang.default_clock_mhz: profile.default_clock_mhz}
    """Where GPUs settle may have changed since: what runs at default clocks is the profile's highest all the same."""
    clocks = {point.clock_mhz for stage in profile.stages for kind in stage.kinds for point in kind.points}
    held = [0, *(clock for clock in clocks if clock < profile.default_clock_mhz)]
    now = build_profile(gang, profile.topology, held, Delays(), job, profile.iteration_time_noise_s)
    points = {
        (stage.stage, kind.kind, clock): point.model_copy(update={"clock_mhz": clock})
        for stage in now.stages
        for kind in stage.kinds
        for point in kind.points
        for clock in (top.get(point.clock_mhz, point.clock_mhz),)
    }
    stages = tuple(
        stage.model_copy(
            update={
                "kinds": tuple(
                    kind.model_copy(
                        update={
                            "points": tuple(
                                points.get((stage.stage, kind.kind, point.clock_mhz), point) for point in kind.points
                            )
                        }
                    )
                    for kind in stage.kinds
                )
            }
        )
        for stage in profile.stages
    )
    return profile.model_copy(update={"stages": stages, "iteration_time_s": now.iteration_time_s})


def iteration_noise_s(plan: JobPlanSpec, ranks: Sequence[RankReport]) -> float:
    """How far from the mean of an iteration at default clocks is no distance: half its 95% interval, from the sweep's
    blocks at default clocks, and the usual deviation of an iteration; 0 of fewer than four blocks."""
    assert plan.sweep is not None
    default = [
        block
        for index, block in complete_blocks(plan.hash, ranks).items()
        if index < len(plan.sweep.clocks_mhz) and plan.sweep.clocks_mhz[index] == 0
    ]
    if len(default) < LEAST_PAIRS:
        return 0.0
    mean = estimate([block.time_s for block in default])
    return (mean.ci95_high - mean.ci95_low) / 2 + median(block.deviation_s for block in default)


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


def default_energy_j(ranks: Sequence[RankReport]) -> float:
    """Joules of an iteration at default clocks, all ranks: measured power of work and of the waits around it."""
    total = 0.0
    for rank, runs in zip(ranks, counted(ranks), strict=True):
        wait_w, busy_s = next((one.power_w for one in rank.waits if one.clock_mhz == 0), 0.0), 0.0
        for one in rank.instructions:
            if one.clock_mhz == 0 and (times := runs[one.stage, one.kind]):
                total += times * one.power_w * one.time_s
                busy_s += times * one.time_s
        total += wait_w * max(0.0, rank.control_time_s - busy_s)
    return total
