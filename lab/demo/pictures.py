"""From what was seen of a run to its two pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from demo.iteration import Power, boxes
from demo.published import Published
from demo.watching import Evidence
from joulepath_cli.pictures import frontier_svg, timeline_svg
from joulepath_cli.pictures.frontier_svg import Measured
from joulepath_cli.pictures.timeline_svg import Strip
from joulepath_crds import (
    ArmSummary,
    EnergyPlanStatus,
    EnergyProfileSpec,
    Instruction,
    InstructionTime,
    JobPlanSpec,
    RankReport,
)

__all__ = ["frontier", "timeline"]


def timeline(status: EnergyPlanStatus, evidence: Evidence, note: str) -> str:
    """One iteration at default clocks and one with the plan, as the ranks reported their medians.

    Raises:
        ValueError: Something that the picture shows was not reported; the text says what.
    """
    measured, profile = status.measured, evidence.profile
    if measured is None or profile is None:
        raise ValueError("there is no timeline without a profile and a measurement")
    before = _by_place(evidence.ranks, lambda rank: rank.timeline, "at default clocks")
    after = _by_place(evidence.ranks, lambda rank: rank.plan_timeline, "with the plan")
    default = profile.default_clock_mhz
    clocks = _plan_clocks(evidence.plan)
    strips = (
        Strip(_title("Default clocks", measured.control), boxes(before, _power(profile, lambda *_: default))),
        Strip(
            f"{_title('With the plan', measured.plan)} ({measured.savings.mean:.1%} less)",
            boxes(after, _power(profile, lambda stage, instruction: clocks.get((stage, instruction), 0) or default)),
        ),
    )
    return timeline_svg.draw(strips, f"{note} Medians of the iterations as the ranks saw them.")


def _title(arm: str, summary: ArmSummary) -> str:
    return f"{arm}: {summary.iteration_time_s.mean:.3f} s, {summary.energy_per_iteration_j.mean:.0f} J an iteration"


def _by_place(
    ranks: Mapping[int, RankReport], times: Callable[[RankReport], Sequence[InstructionTime]], what: str
) -> dict[int, Sequence[InstructionTime]]:
    """The times of each rank of the first pipeline, by its place there; of tensor-parallel peers, the first's."""
    first = {
        rank.coordinates.pipeline: rank
        for rank in ranks.values()
        if rank.coordinates.data == 0 and rank.coordinates.tensor == 0
    }
    found = {place: times(rank) for place, rank in first.items()}
    stages = max((rank.stage_count for rank in first.values()), default=0)
    told = {item.stage for items in found.values() for item in items}
    if missing := [str(stage) for stage in range(stages) if stage not in told]:
        raise ValueError(f"no times {what} were reported of stage {', '.join(missing)}")
    return found


def _plan_clocks(plan: JobPlanSpec | None) -> dict[tuple[int, str], int]:
    if plan is None:
        raise ValueError("the JobPlan of the plan was not seen")
    return {
        (stage.stage, instruction): clock
        for stage in plan.stages
        for instruction, clock in zip(stage.order, stage.clocks_mhz, strict=True)
    }


def _power(profile: EnergyProfileSpec, clock_of: Callable[[int, str], int]) -> Power:
    """Watts of an instruction by the measured profile, at the nearest clock that it has."""
    points = {(stage.stage, kind.kind): kind.points for stage in profile.stages for kind in stage.kinds}

    def power(stage: int, instruction: str) -> float | None:
        wanted = clock_of(stage, instruction)
        known = points.get((stage, Instruction.parse(instruction, stage).kind), ())
        nearest = min(known, key=lambda point: abs(point.clock_mhz - wanted), default=None)
        return None if nearest is None else nearest.energy_j / nearest.time_s

    return power


def frontier(status: EnergyPlanStatus, published: Published | None, note: str) -> str:
    """Our lower bound, the plan's point, the measured points and the published frontier, if there is one.

    Raises:
        ValueError: There is no plan or no measurement to show.
    """
    plan, measured = status.plan, status.measured
    if plan is None or measured is None or not status.frontier:
        raise ValueError("there is no frontier without a plan and a measurement")
    return frontier_svg.draw(
        [(point.iteration_time_s, point.lower_bound_j) for point in status.frontier],
        (plan.iteration_time_s, plan.energy_j),
        (plan.t_min_s, plan.baseline_j),
        [_measured("default clocks, measured", measured.control), _measured("plan, measured", measured.plan)],
        () if published is None else published.frontier,
        note,
        published_label="Perseus, published (rounded to ms; without the transfers and gaps that ours has)",
    )


def _measured(label: str, arm: ArmSummary) -> Measured:
    time, energy = arm.iteration_time_s, arm.energy_per_iteration_j
    return Measured(label, time.mean, (time.ci95_low, time.ci95_high), energy.mean, (energy.ci95_low, energy.ci95_high))
