"""What a job's work takes, by a known truth, and what agents measure of it: shared by all ranks of a stage.

GPT-3's published profile, stretched over as many stages as are asked for, and scaled so that an iteration takes as long
whatever the pipeline: what nodes send and get then depends on the pipeline's size alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from joulepath_crds import InstructionMeasurement, InstructionTime, JobPlanSpec, WaitMeasurement
from joulepath_planner import Instruction, Pipeline, Point, Profile, dependencies, one_f_one_b
from virtual_gpus.model import A100_CLOCKS, replay

__all__ = ["DEFAULT_MHZ", "Iteration", "Truth"]

DEFAULT_MHZ: Final = A100_CLOCKS.max_mhz
_DATA: Final = Path(__file__).parents[2] / "examples/data/gpt3-175b_a100-sxm_stage-profile.csv"
_STAGES: Final = 8
_MICROBATCHES: Final = 12
"""Of what was published."""
_TRANSFER_S: Final = 0.002
_TAIL_S: Final = 0.03
_JITTER: Final = 0.001
"""Of an instruction's time: medians of measured ones, all a little different."""
_WARM_UP: Final = 3
"""Iterations until each is like the one before."""
_DIGITS: Final = 7
_ERROR: Final = 0.002
_SEED: Final = 7


@dataclass(frozen=True, slots=True)
class Iteration:
    """One in steady state, as each stage measures it."""

    period_s: float
    timeline: Mapping[int, tuple[InstructionTime, ...]]
    energy_j: Mapping[int, float]
    """Of one GPU of the stage."""


class Truth:
    """Of all pipelines of one shape."""

    def __init__(self, stages: int, microbatches: int) -> None:
        model, share = replay(_DATA), (_MICROBATCHES + _STAGES - 1) / (microbatches + stages - 1)
        clocks = model.clocks.all_mhz
        points = {}
        for stage in range(stages):
            for kind in "FB":
                kernel = model.kernel(stage * _STAGES // stages, kind)
                points[stage, kind] = tuple(
                    Point(clock, share * seconds, share * seconds * watts)
                    for clock, seconds, watts in zip(clocks, kernel.time_s, kernel.power_w, strict=True)
                )
        links = [(stage, stage + 1, "F") for stage in range(stages - 1)]
        links += [(stage + 1, stage, "B") for stage in range(stages - 1)]
        self.pipeline: Final = Pipeline(
            one_f_one_b(stages, microbatches),
            Profile(points, dict(zip(clocks, model.blocking_w, strict=True))),
            transfer_s=dict.fromkeys(links, share * _TRANSFER_S),
            tail_s=dict.fromkeys(range(stages), _TAIL_S),
        )
        self.gpu_model: Final = f"Simulated {model.gpu_name}"
        self.supported_mhz: Final = clocks[::-1]
        self.tail_s: Final = _TAIL_S
        draw = random.Random(_SEED)
        self._jitter = {one: draw.gauss(1, _JITTER) for order in self.pipeline.schedule.orders for one in order}
        self._needs = dependencies(self.pipeline.schedule)
        self._iterations: dict[str, Iteration] = {}
        self._measured: dict[tuple[int, int], tuple[InstructionMeasurement, ...]] = {}

    def order(self, stage: int) -> tuple[str, ...]:
        """What a rank of the stage runs, by name."""
        return tuple(map(str, self.pipeline.schedule.orders[stage]))

    def at_clock(self, clock_mhz: int) -> Iteration:
        """All at one clock, 0 being default ones."""
        return self._iteration(f"at {clock_mhz} MHz", lambda one: clock_mhz)

    def under(self, plan: JobPlanSpec) -> Iteration:
        """All as a plan has it."""
        clocks = {
            (stage.stage, name): clock
            for stage in plan.stages
            for name, clock in zip(stage.order, stage.clocks_mhz, strict=True)
        }
        return self._iteration(plan.hash, lambda one: clocks[one.stage, str(one)])

    def measured(self, stage: int, clock_mhz: int) -> tuple[InstructionMeasurement, ...]:
        """Time and power of a stage's work at a clock, 0 being default ones."""
        if (stage, clock_mhz) not in self._measured:
            microbatches = len(self.pipeline.schedule.orders[stage]) // 2
            found = []
            for kind in "BF":
                seconds, joules = self.pipeline.profile.at(stage, kind, clock_mhz or DEFAULT_MHZ)
                found.append(
                    InstructionMeasurement(
                        stage=stage,
                        kind=kind,
                        clock_mhz=clock_mhz,
                        samples=_WARM_UP * microbatches,
                        time_s=seconds,
                        time_standard_error_s=_ERROR * seconds,
                        power_w=joules / seconds,
                        power_standard_error_w=_ERROR * joules / seconds,
                    )
                )
            self._measured[stage, clock_mhz] = tuple(found)
        return self._measured[stage, clock_mhz]

    def waiting(self, clock_mhz: int) -> WaitMeasurement:
        """Power of a GPU that waits."""
        watts = self.pipeline.profile.wait_power_w(clock_mhz or DEFAULT_MHZ)
        return WaitMeasurement(clock_mhz=clock_mhz, power_w=watts, power_standard_error_w=_ERROR * watts)

    def _iteration(self, name: str, clock_of: Callable[[Instruction], int]) -> Iteration:
        if name not in self._iterations:
            self._iterations[name] = self._played(clock_of)
        return self._iterations[name]

    def _played(self, clock_of: Callable[[Instruction], int]) -> Iteration:
        pipeline, stages = self.pipeline, self.pipeline.schedule.stages
        begun, free = [0.0] * stages, [0.0] * stages
        busy_s, joules = [0.0] * stages, [0.0] * stages
        ends: dict[Instruction, float] = {}
        begins: dict[Instruction, float] = {}
        costs = {one: pipeline.profile.at(one.stage, one.kind, clock_of(one) or DEFAULT_MHZ) for one in self._needs}
        for _ in range(_WARM_UP):
            begun = [end_s + _TAIL_S if end_s else 0.0 for end_s in free]
            free, busy_s, joules = list(begun), [0.0] * stages, [0.0] * stages
            for one, needs in self._needs.items():
                ready = [ends[need.after] + (pipeline.transfer_s[need.link] if need.link else 0.0) for need in needs]
                seconds, energy = costs[one]
                begins[one] = max([free[one.stage], *ready])
                free[one.stage] = ends[one] = begins[one] + seconds * self._jitter[one]
                busy_s[one.stage] += seconds * self._jitter[one]
                joules[one.stage] += energy
        period_s = max(end_s + _TAIL_S - begin_s for end_s, begin_s in zip(free, begun, strict=True))
        waits_w = pipeline.profile.wait_power_w(DEFAULT_MHZ)
        return Iteration(
            period_s,
            {
                stage: tuple(
                    InstructionTime(
                        instruction=str(one),
                        stage=stage,
                        begin_s=round(begins[one] - begun[stage], _DIGITS),
                        end_s=round(ends[one] - begun[stage], _DIGITS),
                    )
                    for one in order
                )
                for stage, order in enumerate(pipeline.schedule.orders)
            },
            {stage: joules[stage] + waits_w * (period_s - busy_s[stage]) for stage in range(stages)},
        )
