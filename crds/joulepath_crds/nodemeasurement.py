"""NodeMeasurement: what the ranks of a node have measured, as one string, apart from what else its agent knows.

Of the same as fields, each write takes the API server half a second where ranks have some hundred instructions; of a
string, milliseconds.
"""

from __future__ import annotations

import json
from typing import Annotated, Final, Self

from pydantic import Field

from joulepath_crds.contract import UID, Contract
from joulepath_crds.nodereport import (
    MOST_TARGETS,
    GpuReport,
    JobReport,
    NodeReportStatus,
    NodeStateStatus,
    RankMeasured,
    RankReport,
    TargetLag,
)
from joulepath_rules.packing import packed, unpacked

__all__ = [
    "GpuLags",
    "Measurements",
    "NodeMeasurementStatus",
    "RankMeasurements",
    "facts_of",
    "joined",
    "learnt_from",
    "measured_of",
    "state_of",
]

_MOST_PACKED: Final = 1_000_000
"""Characters: etcd takes 1.5 MB."""


class GpuLags(Contract):
    """How long it takes to change a GPU's clock, by the clock that is set."""

    uuid: UID
    """The GPU."""
    targets: Annotated[tuple[TargetLag, ...], Field(max_length=MOST_TARGETS)]
    """Those that are known."""


class RankMeasurements(RankMeasured):
    """What was measured of a rank, and which one it is."""

    job_uid: UID
    """UID of its job."""
    attempt: Annotated[int, Field(ge=0)]
    """Its attempt."""
    pod_uid: UID
    """UID of its pod."""
    rank: Annotated[int, Field(ge=0)]
    """Global rank."""
    stages: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=1024)]
    """Stages that it runs: what its instructions belong to."""

    @classmethod
    def of(cls, job: JobReport, rank: RankReport) -> Self:
        """As it is in a report."""
        whose = {"job_uid": job.job_uid, "attempt": job.attempt}
        return cls.model_validate(
            whose | {name: getattr(rank, name) for name in cls.model_fields.keys() - whose.keys()}
        )

    @property
    def measured(self) -> dict[str, object]:
        """What was measured, by the names of a report's fields."""
        return {name: getattr(self, name) for name in RankMeasured.model_fields}


class Measurements(Contract):
    """All that was measured on a node."""

    gpus: Annotated[tuple[GpuLags, ...], Field(max_length=64)] = ()
    """Its GPUs."""
    ranks: Annotated[tuple[RankMeasurements, ...], Field(max_length=1024)] = ()
    """Its ranks."""

    def packed(self) -> str:
        """As a string; of each number seven digits, more of which nothing is known."""
        return packed(json.loads(self.model_dump_json(by_alias=True, exclude_defaults=True), parse_float=_seven_digits))

    @classmethod
    def unpacked(cls, text: str) -> Self:
        """From such a string; nothing from an empty one.

        Raises:
            ValueError: It is none, is of another form, or holds too much.
        """
        return cls.model_validate_json(unpacked(text)) if text else cls()


class NodeMeasurementStatus(Contract):
    """What was measured on a node."""

    packed: Annotated[str, Field(max_length=_MOST_PACKED)] = ""
    """Orders, timelines, blocks, times and powers of the node's ranks and lags of its GPUs, compressed."""


def learnt_from(data_parallel: int, tensor_parallel: int) -> tuple[tuple[int, int], ...]:
    """Pipelines of which timelines are told, by their places among replicas and among tensor-parallel peers.

    Five from all over the job, always the same, the first one first: replicas do alike, and of five the middle isn't
    moved by two that are disturbed.
    """
    places = data_parallel * tensor_parallel
    count = min(5, places)
    return tuple(divmod(at * (places - 1) // max(1, count - 1), tensor_parallel) for at in range(count))


def facts_of(report: NodeReportStatus) -> NodeReportStatus:
    """What is so of the node, whatever its ranks do."""
    gpus = tuple(_with_targets(gpu, None) for gpu in report.gpus)
    return report.model_copy(update={"gpus": gpus, "jobs": ()})


def state_of(report: NodeReportStatus) -> NodeStateStatus:
    """What its ranks do now."""
    return NodeStateStatus(jobs=report.jobs)


def measured_of(report: NodeReportStatus) -> Measurements:
    """What was measured."""
    return Measurements(
        gpus=tuple(
            GpuLags(uuid=gpu.uuid, targets=gpu.lag.targets) for gpu in report.gpus if gpu.lag and gpu.lag.targets
        ),
        ranks=tuple(RankMeasurements.of(job, rank) for job in report.jobs for rank in job.ranks),
    )


def joined(facts: NodeReportStatus, jobs: tuple[JobReport, ...], measured: Measurements) -> NodeReportStatus:
    """All of a node: of these jobs' ranks what was measured of them in their attempt, if anything."""
    lags = {gpu.uuid: gpu.targets for gpu in measured.gpus}
    found = {(one.job_uid, one.attempt, one.pod_uid, one.rank, one.stages): one.measured for one in measured.ranks}

    def whole(job: JobReport, rank: RankReport) -> RankReport:
        known = found.get((job.job_uid, job.attempt, rank.pod_uid, rank.rank, rank.stages))
        return rank if known is None else rank.model_copy(update=known)

    return facts.model_copy(
        update={
            "gpus": tuple(_with_targets(gpu, lags[gpu.uuid]) if gpu.uuid in lags else gpu for gpu in facts.gpus),
            "jobs": tuple(
                job.model_copy(update={"ranks": tuple(whole(job, rank) for rank in job.ranks)}) for job in jobs
            ),
        }
    )


def _with_targets(gpu: GpuReport, targets: object) -> GpuReport:
    if gpu.lag is None:
        return gpu
    return gpu.model_copy(update={"lag": gpu.lag.model_copy(update={"targets": targets})})


def _seven_digits(number: str) -> float:
    return float(f"{float(number):.7g}")
