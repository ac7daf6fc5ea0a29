"""A pipeline on paper (when each instruction of 1F1B runs) and the status of a run: what pictures and reports show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from joulepath_crds import (
    ArmSummary,
    EnergyPlanStatus,
    Estimate,
    FrontierPoint,
    Granularity,
    InstructionTime,
    MeasuredSavings,
    Phase,
    PlanSummary,
)


def order(stage: int, stages: int, microbatches: int) -> list[str]:
    """The instructions of a stage under 1F1B."""
    warm = min(stages - stage - 1, microbatches)
    steady = [f"{kind}{m + warm if kind == 'F' else m}" for m in range(microbatches - warm) for kind in "FB"]
    return [f"F{m}" for m in range(warm)] + steady + [f"B{m}" for m in range(microbatches - warm, microbatches)]


def one_f_one_b(
    forward_s: Sequence[float],
    backward_s: Sequence[float],
    microbatches: int,
    delay_s: float,
    clock_off_s: Sequence[float],
) -> Mapping[int, tuple[InstructionTime, ...]]:
    """Begin and end of each instruction, on each stage's own clock (which is off by so much)."""
    stages = len(forward_s)
    left = {stage: order(stage, stages, microbatches) for stage in range(stages)}
    at = dict.fromkeys(range(stages), 0.0)
    ends: dict[tuple[int, str], float] = {}
    found: dict[int, list[InstructionTime]] = {stage: [] for stage in range(stages)}
    while any(left.values()):
        for stage in range(stages):
            while left[stage]:
                instruction = left[stage][0]
                neighbour = stage - 1 if instruction[0] == "F" else stage + 1
                if 0 <= neighbour < stages and (neighbour, instruction) not in ends:
                    break
                arrived = ends[neighbour, instruction] + delay_s if 0 <= neighbour < stages else 0.0
                begin = max(at[stage], arrived)
                end = begin + (forward_s if instruction[0] == "F" else backward_s)[stage]
                at[stage] = ends[stage, instruction] = end
                off = clock_off_s[stage]
                found[stage].append(
                    InstructionTime(instruction=instruction, stage=stage, begin_s=begin - off, end_s=end - off)
                )
                left[stage].pop(0)
    return {stage: tuple(items) for stage, items in found.items()}


Pipeline = Callable[..., Mapping[int, tuple[InstructionTime, ...]]]


@pytest.fixture(scope="session")
def pipeline() -> Pipeline:
    """Times of a 1F1B iteration, by stage."""
    return one_f_one_b


def _estimate(mean: float, half: float) -> Estimate:
    return Estimate(mean=mean, ci95_low=mean - half, ci95_high=mean + half)


def _status(
    *, savings: float = 0.152, predicted: float = 0.155, slowdown: float = 0.002, iterations: int = 32
) -> EnergyPlanStatus:
    def arm(time_s: float, energy_j: float) -> ArmSummary:
        return ArmSummary(
            iterations=iterations,
            iteration_time_s=_estimate(time_s, 0.002),
            energy_per_iteration_j=_estimate(energy_j, 9),
        )

    return EnergyPlanStatus(
        phase=Phase.COMPLETED,
        plan=PlanSummary(
            hash="0123456789abcdef",
            granularity=Granularity.INSTRUCTION,
            t_min_s=1.42,
            iteration_time_s=1.421,
            baseline_j=3700,
            energy_j=3700 * (1 - predicted),
            lower_bound_j=3100,
            predicted_savings=predicted,
            bound_savings=1 - 3100 / 3700,
        ),
        frontier=tuple(
            FrontierPoint(iteration_time_s=1.42 + 0.01 * step, lower_bound_j=3100 - 250 * step / (step + 12))
            for step in range(33)
        ),
        measured=MeasuredSavings(
            pairs=8,
            control=arm(1.43, 3720),
            plan=arm(1.43 * (1 + slowdown), 3720 * (1 - savings)),
            savings=_estimate(savings, 0.004),
            slowdown=_estimate(slowdown, 0.001),
        ),
    )


@pytest.fixture(scope="session")
def status() -> Callable[..., EnergyPlanStatus]:
    """The status of a completed EnergyPlan; savings, predicted, slowdown and iterations can be chosen."""
    return _status
