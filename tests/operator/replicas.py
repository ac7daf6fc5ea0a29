"""Replicas of the simulated pipeline, of which some may be held up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from joulepath_crds import Arm, BlockReport, Coordinates, EnergyPlanSpec, JobReport, RankReport, arm_of, learnt_from
from joulepath_operator.facts.observation import NodeJob
from joulepath_planner import Simulation, simulate
from tests.operator.conftest import World, truth

__all__ = ["Replicas", "Slow"]

Slow = Mapping[int, Mapping[int, float]]
Clocks = tuple[tuple[int | None, ...], ...] | None


@lru_cache
def replay(clocks: Clocks, factors: tuple[tuple[int, float], ...], pace_s: float | None) -> Simulation:
    slow = dict(factors)
    stretch = (lambda _, one: slow.get(one.stage, 1.0)) if slow else None
    points = truth().profile.points
    lowest = [max(points[stage, kind][-1].clock_mhz for kind in "FB") for stage in range(8)]
    if clocks is not None:
        clocks = tuple(tuple(c and max(c, least) for c in row) for row, least in zip(clocks, lowest, strict=True))
    return simulate(truth(), clocks, pace_s=pace_s, stretch=stretch)


class Replicas(World):
    """Replicas of the pipeline, a node each; `held` says what is slower by itself, stage by stage."""

    def __init__(self, spec: EnergyPlanSpec | None = None, replicas: int = 2) -> None:
        super().__init__(spec)
        self.replicas, self.size, self.ranks = replicas, 8 * replicas, 8 * replicas
        self.held: Slow = {}
        self.told: dict[int, float] = {}
        """What ranks tell of their own work."""
        self.waits: dict[int, float] = {}
        """How long each replica has waited for others at the end of its iterations, at least."""
        self.measured: dict[tuple[str, int, int, int, int], BlockReport] = {}

    def announce(self, text: str | None) -> None:
        assert self.job is not None
        self.job = replace(self.job, straggler=text)

    def played(self, data: int, arm: Arm) -> Clocks:
        """The clocks of a replica, as its agents read them from the JobPlan."""
        plan = self.plan
        if plan is None or arm is not Arm.PLAN:
            return None
        clocks = {stage.stage: stage.clocks_mhz for stage in plan.stages}
        if plan.stretched is not None and data in plan.stretched.default_replicas:
            return None
        if plan.stretched is not None and data in plan.stretched.replicas:
            clocks |= {stage.stage: stage.clocks_mhz for stage in plan.stretched.stages}
        return tuple(tuple(clock or None for clock in clocks[stage]) for stage in sorted(clocks))

    def factors(self, data: int) -> tuple[tuple[int, float], ...]:
        return tuple(sorted(self.held.get(data, {}).items()))

    def time_s(self, arm: Arm) -> float:
        """All wait for the slowest."""
        return max(
            replay(self.played(data, arm), self.factors(data), None).iteration_time_s for data in range(self.replicas)
        )

    def nodes(self) -> tuple[NodeJob, ...]:
        assert self.job is not None
        if (plan := self.plan) is not None:
            self._staged.setdefault(plan.hash, self.iteration)
        nodes = []
        told_of = {data for data, _ in learnt_from(self.replicas, 1)}
        for data in range(self.replicas):
            places = [place for place in range(8) if 8 * data + place < 2 * self.ranks]
            ranks = tuple(self._replica_rank(data, place) for place in places)
            if data not in told_of:
                ranks = tuple(rank.model_copy(update={"timeline": ()}) for rank in ranks)
            report = JobReport(
                job_uid=self.job.uid,
                namespace="team",
                job="gpt3",
                attempt=self.attempt,
                world_size=self.size,
                ranks=ranks,
            )
            gpus = tuple(self._gpu(8 * data + place) for place in range(8))
            nodes.append(NodeJob(f"node-{data}", report, gpus))
        return tuple(nodes)

    def _replica_rank(self, data: int, place: int) -> RankReport:
        number = 8 * data + place
        refusal = self.refusal.get(number)
        self.refusal, kept = {place: refusal} if refusal else {}, self.refusal
        try:
            report = self._rank(place)
        finally:
            self.refusal = kept
        return report.model_copy(
            update={
                "rank": number,
                "pod": f"gpt3-worker-{number // 4}",
                "pod_uid": f"pod-{number // 4}",
                "gpu_uuid": f"GPU-{number}",
                "coordinates": Coordinates(data=data, pipeline=place),
                "data_parallel": self.replicas,
                "tail_s": report.tail_s + self.waits.get(data, 0.0),
                "slowdown": self.told.get(number, 1.0),
                "slowed_by": "heat" if number in self.told else "",
                "blocks": tuple(self._replica_blocks(data, place)),
            }
        )

    def _replica_blocks(self, data: int, place: int) -> list[BlockReport]:
        plan, blocks = self.plan, []
        if plan is None or plan.activate_at is None or plan.blocks is None:
            return []
        for block in range(max(0, (self.iteration - plan.activate_at) // plan.blocks.iterations)):
            arm, number = arm_of(plan, plan.activate_at + block * plan.blocks.iterations)
            if number < 0:
                continue
            key = plan.hash, plan.activate_at, block, data, place
            if key not in self.measured:  # as things are now, not as they are later
                self.measured[key] = self._block(plan.hash, plan.blocks.iterations, block, arm, data, place)
            blocks.append(self.measured[key])
        return blocks

    def _block(self, plan_hash: str, length: int, block: int, arm: Arm, data: int, place: int) -> BlockReport:
        time_s = self.time_s(arm)
        joules = replay(self.played(data, arm), self.factors(data), time_s).energy[place].total_j
        return BlockReport(
            hash=plan_hash,
            block=block,
            arm=arm,
            iterations=length - 2,
            iteration_time_s=time_s * (1 + self.jitter * (block % 3)),
            energy_per_iteration_j=joules * (1 + 1e-3 * (block % 5)),
        )
