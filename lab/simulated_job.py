"""A training job on simulated GPUs, in process and not in real time: what agents measure of it, by a known truth.

Ranks run their orders; seconds and watts of each execution are the truth's at the clock in force, with noise from
kernel to kernel. What is seen of that is what agents see: records of iterations and the edges of an energy counter. The
agent's own code (`History`) makes measurements of them, as it does on a node. Tests and benchmarks use it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from joulepath_agent.gpus.energy import Trace
from joulepath_agent.measuring.history import History
from joulepath_crds import Arm, Coordinates, GpuReport, JobReport, RankReport
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.observation import NodeJob
from joulepath_planner import Instruction, Pipeline, dependencies
from joulepath_rules import Applied
from joulepath_trainer.wire.messages import InstructionSpan, IterationRecord
from joulepath_trainer.wire.protocol import PAIR

__all__ = ["SimulatedJob", "Spent"]

_EDGE_S: Final = 0.0005
"""By how much an edge of the counter is seen too soon or too late at most."""
_MODEL: Final = "Simulated A100"
_SAME_NODE: Final = "node"


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds and joules of all GPUs."""

    time_s: float = 0.0
    energy_j: float = 0.0


@dataclass(slots=True)
class _Gpu:
    """One rank's GPU: when it drew how many watts, and what its agent has seen."""

    history: History = field(default_factory=History)
    until_s: list[float] = field(default_factory=lambda: [0.0])
    joules: list[float] = field(default_factory=lambda: [0.0])

    def draw(self, until_s: float, watts: float) -> None:
        self.joules.append(self.joules[-1] + watts * (until_s - self.until_s[-1]))
        self.until_s.append(until_s)


class SimulatedJob:
    """Replicas of a pipeline, one GPU a stage. `pipeline` is the truth: its profile has every clock of the GPU.

    slow: of how many kernels take how much longer, both as fractions.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        replicas: int = 1,
        time_noise: float = 0.01,
        energy_noise: float = 0.02,
        slow: tuple[float, float] = (0.0, 0.0),
        counter_s: float = 0.1,
        seed: int = 0,
    ) -> None:
        self.pipeline, self.replicas, self.iteration = pipeline, replicas, 0
        self._noise, self._counter_s = (time_noise, energy_noise), counter_s
        self._slow = slow
        self._source = np.random.default_rng(seed)
        self._needs = dependencies(pipeline.schedule)
        self._gpus = [[_Gpu() for _ in pipeline.schedule.orders] for _ in range(replicas)]
        self._beats_s = self._source.uniform(0, counter_s, (replicas, len(pipeline.schedule.orders)))

    def run(self, iterations: int, applied: Callable[[int], Applied]) -> Spent:
        """Trains on, at the clock that is applied to each replica; what it took."""
        before = self._spent()
        for _ in range(iterations):
            begun = [[gpu.until_s[-1] for gpu in gpus] for gpus in self._gpus]
            records = [self._iterate(gpus, applied(replica)) for replica, gpus in enumerate(self._gpus)]
            ends = [gpu.until_s[-1] for gpus in self._gpus for gpu in gpus]
            for gpus in self._gpus:  # replicas meet at the reduction of their gradients
                for rank, gpu in enumerate(gpus):
                    late_s = max(ends) - max(one.until_s[-1] for one in gpus)
                    if late_s > 0:
                        gpu.draw(gpu.until_s[-1] + late_s, self.pipeline.profile.wait_power_w(self._default_mhz(rank)))
            for gpus, begun_s, told in zip(self._gpus, begun, records, strict=True):
                for gpu, begin_s, record in zip(gpus, begun_s, told, strict=True):
                    gpu.history.record(replace(record, period_s=gpu.until_s[-1] - begin_s))
            self.iteration += 1
        after = self._spent()
        return Spent(after.time_s - before.time_s, after.energy_j - before.energy_j)

    def gang(self) -> Gang:
        """What the nodes report."""
        ranks, stages = [], self.pipeline.schedule.stages
        for replica, gpus in enumerate(self._gpus):
            for place, (gpu, order) in enumerate(zip(gpus, self.pipeline.schedule.orders, strict=True)):
                trace = self._trace(gpu, float(self._beats_s[replica, place]))
                gpu.history.digest(lambda trace=trace: trace)  # type: ignore[misc]
                measured, number = gpu.history.measured(), replica * len(gpus) + place
                ranks.append(
                    RankReport(
                        rank=number,
                        pod=f"pod-{number}",
                        pod_uid=f"pod-{number}",
                        gpu_uuid=f"GPU-{number}",
                        coordinates=Coordinates(data=replica, pipeline=place),
                        data_parallel=self.replicas,
                        stages=tuple(sorted({one.stage for one in order})),
                        stage_count=stages,
                        schedule="1F1B",
                        microbatches=len({one.microbatch for one in order}),
                        order=tuple(str(one) for one in order),
                        iteration=self.iteration,
                        iteration_time_s=gpu.history.iteration_time_s,
                        control_time_s=gpu.history.control_time_s,
                        tail_s=gpu.history.tail_s or 0.0,
                        timeline=measured.timeline,
                        instructions=measured.instructions,
                        waits=measured.waits,
                        blocks=tuple(gpu.history.blocks),
                    )
                )
        report = JobReport(job_uid="uid", namespace="team", job="job", world_size=len(ranks), ranks=tuple(ranks))
        clocks = tuple(sorted({one.clock_mhz for ones in self.pipeline.profile.points.values() for one in ones}))
        told = tuple(
            GpuReport(uuid=rank.gpu_uuid, model=_MODEL, default_clock_mhz=clocks[-1], supported_clocks_mhz=clocks[::-1])
            for rank in ranks
        )
        gang = Gang.of([NodeJob(_SAME_NODE, report, told)])
        assert gang is not None
        return gang

    def _default_mhz(self, rank: int) -> int:
        return self.pipeline.profile.default_clock_mhz(self.pipeline.schedule.orders[rank][0].stage)

    def _spent(self) -> Spent:
        gpus = [gpu for of in self._gpus for gpu in of]
        return Spent(max(gpu.until_s[-1] for gpu in gpus), sum(gpu.joules[-1] for gpu in gpus))

    def _iterate(self, gpus: Sequence[_Gpu], applied: Applied) -> list[IterationRecord]:
        pipeline, ends = self.pipeline, dict[Instruction, float]()
        begun = [gpu.until_s[-1] for gpu in gpus]
        free, spans = list(begun), [list[InstructionSpan]() for _ in gpus]
        rank_of = pipeline.schedule.rank_of
        for one, needs in self._needs.items():
            rank = rank_of[one.stage]
            ready = [
                ends[need.after] + (pipeline.transfer_s.get(need.link, 0.0) if need.link else 0.0) for need in needs
            ]
            host_s = pipeline.gap(one) if spans[rank] else 0.0
            clock = applied.clock_mhz or self._default_mhz(rank)
            seconds, joules = pipeline.profile.at(one.stage, one.kind, clock)
            time_factor, energy_factor = (float(np.exp(self._source.normal(0, by))) for by in self._noise)
            if self._slow[0] and self._source.random() < self._slow[0]:
                time_factor *= 1 + self._slow[1]
            begin_s = max([free[rank] + host_s, *ready])
            end_s = begin_s + seconds * time_factor
            gpus[rank].draw(begin_s, pipeline.profile.wait_power_w(clock))
            gpus[rank].draw(end_s, joules / seconds * energy_factor)
            if extra_s := pipeline.extra(one):
                end_s += extra_s
                gpus[rank].draw(end_s, pipeline.profile.wait_power_w(clock))
            free[rank] = ends[one] = end_s
            at_s = begun[rank]
            _, *second = one.halves
            kind, back = (PAIR, (second[0].stage, second[0].microbatch)) if second else (one.kind, (0, 0))
            spans[rank].append(InstructionSpan(kind, one.stage, one.microbatch, begin_s - at_s, end_s - at_s, back))
        records = []
        for rank, gpu in enumerate(gpus):
            clock = applied.clock_mhz or self._default_mhz(rank)
            gpu.draw(free[rank] + (pipeline.rank_tail_s(rank) or 0.0), pipeline.profile.wait_power_w(clock))
            gpu.history.begin(self.iteration, applied, begun[rank], spoiled_before=False)
            ended_s = free[rank] - begun[rank]
            records.append(IterationRecord(self.iteration, ended_s, 0.0, tuple(spans[rank])))
        return records

    def _trace(self, gpu: _Gpu, beat_s: float) -> Trace:
        edges = np.arange(beat_s, gpu.until_s[-1], self._counter_s)
        seen = edges + self._source.uniform(-_EDGE_S, _EDGE_S, len(edges))
        joules = np.interp(edges, gpu.until_s, gpu.joules)
        return Trace(seen, joules, np.full(len(edges), _EDGE_S))


def sweep_block(plan_hash: str, block: int, clock_mhz: int, length: int) -> Applied:
    """What the iterations of a sweep's block run."""
    return Applied(Arm.SWEEP, block, plan_hash, clock_mhz, length)
