"""The ranks of one attempt of a job, put together from the reports of its nodes.

Ranks of an older attempt don't count: they are processes of a gang that is gone. Attempts are numbered by the clocks of
several nodes, so that a lost node's last report may carry a larger number than the attempt after it: what is silent,
by the operator's own clock, doesn't count while another attempt speaks. A gang is complete when every rank
reports; only then does its topology mean anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Self

from joulepath_crds import REPORT_INTERVAL_S, GpuReport, RankReport, RankState, SwitchingLag, Topology
from joulepath_operator.facts.lags import pooled
from joulepath_operator.facts.observation import NodeJob
from joulepath_operator.facts.refusals import Refusal

__all__ = ["Gang", "RefusalError", "rivals"]


class RefusalError(Exception):
    """Something about the job that rules a plan out: a reason and a sentence with the remedy."""

    def __init__(self, reason: Refusal, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Gang:
    """Ranks by number, all of one attempt."""

    attempt: int
    world_size: int
    ranks: tuple[RankReport, ...]
    gpus: Mapping[str, GpuReport]
    age_s: Mapping[int, float]

    @classmethod
    def of(cls, nodes: Iterable[NodeJob]) -> Self | None:
        """The gang of the newest attempt that still speaks; None where no node reports a rank."""
        reporting = [node for node in nodes if node.report.ranks]
        if not reporting:
            return None
        speaking = [node for node in reporting if node.age_s <= _longest_pause_s(node)]
        attempt = max(node.report.attempt for node in speaking or reporting)
        # Oldest first: of two nodes that claim a rank, the one that spoke last has it.
        current = sorted((node for node in reporting if node.report.attempt == attempt), key=lambda node: -node.age_s)
        ranks = {rank.rank: rank for node in current for rank in node.report.ranks}
        return cls(
            attempt=attempt,
            world_size=max(node.report.world_size for node in current),
            ranks=tuple(ranks[number] for number in sorted(ranks)),
            gpus={gpu.uuid: gpu for node in current for gpu in node.own_gpus},
            age_s={rank.rank: node.age_s for node in current for rank in node.report.ranks},
        )

    @property
    def complete(self) -> bool:
        return len(self.ranks) == self.world_size

    @property
    def ordered(self) -> bool:
        """Whether every rank has seen one whole iteration."""
        return all(rank.order for rank in self.ranks)

    @property
    def control_time_s(self) -> float:
        """Measured seconds of an iteration at default clocks, mean of the ranks; 0 until all know it."""
        times = [rank.control_time_s for rank in self.ranks]
        return fmean(times) if times and all(times) else 0.0

    @property
    def iteration_time_s(self) -> float:
        """Seconds of an iteration now, the longest that a rank tells; 0 while unknown."""
        return max((rank.iteration_time_s or rank.control_time_s for rank in self.ranks), default=0.0)

    def staged(self, plan_hash: str) -> bool:
        """Whether every rank has the plan ready."""
        return self.complete and all(rank.staged_hash == plan_hash for rank in self.ranks)

    def refused_ranks(self) -> tuple[RankReport, ...]:
        return tuple(rank for rank in self.ranks if rank.state is RankState.REFUSED)

    def pipeline(self, data: int = 0, tensor: int = 0) -> tuple[RankReport, ...]:
        """The ranks of one replica and tensor index, in the order of the pipeline."""
        chosen = [r for r in self.ranks if r.coordinates.data == data and r.coordinates.tensor == tensor]
        return tuple(sorted(chosen, key=lambda rank: rank.coordinates.pipeline))

    def topology(self) -> Topology:
        """The pipeline that the ranks agree on.

        Raises:
            RefusalError: They don't agree, or a GPU may not be touched.
        """
        for rank in self.ranks:
            gpu = self.gpus.get(rank.gpu_uuid)
            if gpu is None:
                raise RefusalError(
                    Refusal.UNKNOWN_GPU,
                    f"Rank {rank.rank} runs on GPU {rank.gpu_uuid}, which its node doesn't list. See the agent's log.",
                )
            if gpu.refused:
                raise RefusalError(
                    Refusal.GPU_REFUSED,
                    f"GPU {gpu.uuid} of rank {rank.rank} can't be used: {gpu.refused}. "
                    "Give each rank a whole GPU of its own (no MIG, time slicing or MPS).",
                )
        if len({rank.gpu_uuid for rank in self.ranks}) < len(self.ranks):
            raise RefusalError(Refusal.SHARED_GPU, "Two ranks share a GPU. Give each rank a GPU of its own.")
        gpus = [self.gpus[rank.gpu_uuid] for rank in self.ranks]
        if len({(gpu.model, gpu.default_clock_mhz) for gpu in gpus}) > 1:
            models = ", ".join(sorted({f"{gpu.model} at {gpu.default_clock_mhz} MHz" for gpu in gpus}))
            raise RefusalError(
                Refusal.MIXED_GPUS, f"The ranks run on different GPUs ({models}). Use one model at one default clock."
            )
        self._check_shapes()
        first = self.ranks[0]
        topology = Topology(
            schedule=first.schedule,
            stages=first.stage_count,
            microbatches=first.microbatches,
            data_parallel=first.data_parallel,
            tensor_parallel=first.tensor_parallel,
            gpu_model=gpus[0].model,
            default_clock_mhz=gpus[0].default_clock_mhz,
        )
        self._check_places(topology)
        return topology

    def lag(self) -> SwitchingLag | None:
        """The lag to plan with; None where that of a GPU isn't known."""
        lags = [self.gpus[rank.gpu_uuid].lag for rank in self.ranks if rank.gpu_uuid in self.gpus]
        known = [lag for lag in lags if lag is not None and lag.samples > 0]
        return pooled(known) if known and len(known) == len(self.ranks) else None

    def supported_clocks_mhz(self) -> tuple[int, ...]:
        """Clocks that every GPU of the job has, from the default one down."""
        gpus = [self.gpus[rank.gpu_uuid] for rank in self.ranks]
        common = set(gpus[0].supported_clocks_mhz).intersection(*(gpu.supported_clocks_mhz for gpu in gpus[1:]))
        top = min(gpu.default_clock_mhz for gpu in gpus)
        return tuple(sorted((clock for clock in common if clock <= top), reverse=True))

    @property
    def default_clock_mhz(self) -> int:
        """What default clocks amount to: where the GPU settles that gets highest.

        Where another settles lower, locks between the two change nothing on it, as is measured. With the lowest, one
        hot GPU would cost all others the clocks between."""
        gpus = [self.gpus[rank.gpu_uuid] for rank in self.ranks]
        return max(gpu.settled_clock_mhz or gpu.default_clock_mhz for gpu in gpus)

    @property
    def driver(self) -> str:
        """Of the GPUs; empty where that of one isn't known."""
        drivers = {self.gpus[rank.gpu_uuid].driver for rank in self.ranks}
        return "" if "" in drivers else ", ".join(sorted(drivers))[:64]

    @property
    def power_cap_w(self) -> float | None:
        """What the GPU that is held to least is held to; None where that of one isn't known."""
        caps_w = [self.gpus[rank.gpu_uuid].power_cap_w for rank in self.ranks]
        known_w = [cap_w for cap_w in caps_w if cap_w is not None]
        return min(known_w) if len(known_w) == len(caps_w) else None

    def _check_shapes(self) -> None:
        shapes = {
            (one.schedule, one.stage_count, one.microbatches, one.data_parallel, one.tensor_parallel): one.rank
            for one in self.ranks
        }
        names = "schedule", "number of stages", "number of microbatches", "number of replicas"
        for at, what in enumerate((*names, "number of tensor-parallel peers")):
            values = {shape[at]: rank for shape, rank in shapes.items()}
            if len(values) > 1:
                told = ", ".join(f"rank {rank} says {value}" for value, rank in list(values.items())[:3])
                raise RefusalError(
                    Refusal.RANKS_DISAGREE, f"The ranks disagree on the {what}: {told}. Run the same code on all ranks."
                )

    def _check_places(self, topology: Topology) -> None:
        owners: dict[int, int] = {}
        for rank in self.ranks:
            for stage in rank.stages:
                if owners.setdefault(stage, rank.coordinates.pipeline) != rank.coordinates.pipeline:
                    raise RefusalError(
                        Refusal.RANKS_DISAGREE, f"Stage {stage} is at two places of the pipeline. Check the groups."
                    )
        depth = len(set(owners.values()))
        expected = depth * topology.data_parallel * topology.tensor_parallel
        places = {(r.coordinates.data, r.coordinates.pipeline, r.coordinates.tensor) for r in self.ranks}
        if sorted(owners) != list(range(topology.stages)) or not len(places) == len(self.ranks) == expected:
            raise RefusalError(
                Refusal.RANKS_DISAGREE,
                f"{len(self.ranks)} ranks with {len(places)} places and stages {sorted(owners)} are no pipeline of "
                f"{topology.stages} stages with {topology.data_parallel} replicas and {topology.tensor_parallel} "
                "tensor-parallel peers. Check the process groups that the pipeline is given.",
            )


def rivals(nodes: Iterable[NodeJob]) -> tuple[str, str] | None:
    """Two pods that speak and can't be of one training; None where all may be.

    They claim one rank of an attempt with GPUs of their own, or are of two attempts that are both whole and have no pod
    in common. A rank that moves and a job whose pods are made anew look like that, too, until what was there before has
    been silent for a while.
    """
    whole: list[dict[str, str]] = []
    speaking = [node for node in nodes if node.report.ranks and node.age_s <= _longest_pause_s(node)]
    for attempt in sorted({node.report.attempt for node in speaking}):
        current = [node.report for node in speaking if node.report.attempt == attempt]
        claims: dict[int, RankReport] = {}
        for rank in (rank for report in current for rank in report.ranks):
            first = claims.setdefault(rank.rank, rank)
            if (first.pod_uid, first.gpu_uuid) != (rank.pod_uid, rank.gpu_uuid):
                return first.pod, rank.pod
        if len(claims) < max(report.world_size for report in current):
            continue
        pods = {rank.pod_uid: rank.pod for rank in claims.values()}
        for others in whole:
            if not others.keys() & pods.keys():
                return next(iter(others.values())), next(iter(pods.values()))
        whole.append(pods)
    return None


def _longest_pause_s(node: NodeJob) -> float:
    """An agent reports what has changed, and an iteration changes it: the interval and a half, or two iterations."""
    return max(1.5 * REPORT_INTERVAL_S, *(2 * rank.iteration_time_s for rank in node.report.ranks))
