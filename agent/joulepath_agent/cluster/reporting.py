"""When a report is worth a write: at once where a plan waits for what changed, else seldom. And how large it is.

Reports are the cluster's largest and most frequent writes: etcd keeps every version until it compacts, and takes none
of more than 1.5 MB. Pure; the clock comes in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from joulepath_crds import REPORT_INTERVAL_S, NodeReportStatus, RankReport

__all__ = ["Pace", "awaited", "fitting"]

_SOON_S: Final = 0.5
_BLOCKS_S: Final = 5.0
_INJECTION_S: Final = 5.0
"""Pods may come and go by the second, on a node whose report is large."""


def awaited(report: NodeReportStatus) -> object:
    """The part of a report that somebody waits for: the operator, or who pauses all plans."""
    return (
        report.policy,
        [(gpu.uuid, gpu.refused, gpu.lag is None) for gpu in report.gpus],
        [
            (
                (job.job_uid, job.attempt, rank.rank, rank.pod_uid, rank.gpu_uuid, rank.order),
                (bool(rank.control_time_s), rank.state, rank.staged_hash, rank.applied_hash),
                rank.reason.partition(":")[0],
            )
            for job in report.jobs
            for rank in job.ranks
        ],
    )


def _injection(report: NodeReportStatus) -> object:
    return report.injector, report.injector_why, report.injection, report.old_pythons


def _blocks(report: NodeReportStatus) -> object:
    return [[(block.hash, block.block) for block in rank.blocks[-1:]] for job in report.jobs for rank in job.ranks]


def fitting(report: NodeReportStatus, most_bytes: int) -> NodeReportStatus:
    """The report, no larger than that: first without what ranks did under a plan, then without their measurements.

    Those of the ranks that tell most go first. Nothing is planned by a timeline under a plan.
    """
    for smaller in (_unplanned, _bare):
        report = _shed(report, most_bytes, smaller)
    return report


def _shed(report: NodeReportStatus, most_bytes: int, smaller: Callable[[RankReport], RankReport]) -> NodeReportStatus:
    excess = _bytes(report) - most_bytes
    if excess <= 0:
        return report
    shed: dict[int, RankReport] = {}
    for rank in sorted((rank for job in report.jobs for rank in job.ranks), key=_bytes, reverse=True):
        if excess > 0:
            shed[id(rank)] = smaller(rank)
            excess -= _bytes(rank) - _bytes(shed[id(rank)])
    jobs = tuple(
        job.model_copy(update={"ranks": tuple(shed.get(id(rank), rank) for rank in job.ranks)}) for job in report.jobs
    )
    return report.model_copy(update={"jobs": jobs})


def _bytes(part: NodeReportStatus | RankReport) -> int:
    return len(part.model_dump_json(by_alias=True, exclude_none=True))


def _unplanned(rank: RankReport) -> RankReport:
    return rank.model_copy(update={"plan_timeline": ()})


def _bare(rank: RankReport) -> RankReport:
    why = rank.reason or "OverBudget: this rank's measurements are left out, the report of its node would be too large"
    measured = dict.fromkeys(("timeline", "plan_timeline", "instructions", "waits", "blocks"), ())
    return rank.model_copy(update={**measured, "reason": why})


class Pace:
    """Remembers what was written when."""

    def __init__(self) -> None:
        self._written: NodeReportStatus | None = None
        self._written_at_s = 0.0

    def due(self, report: NodeReportStatus, now_s: float) -> bool:
        """Whether to write this report now."""
        if self._written is None:
            return True
        since_s = now_s - self._written_at_s
        if since_s < _SOON_S or report == self._written:
            return False
        if awaited(report) != awaited(self._written) or since_s >= REPORT_INTERVAL_S:
            return True
        if since_s >= _INJECTION_S and _injection(report) != _injection(self._written):
            return True
        return since_s >= _BLOCKS_S and _blocks(report) != _blocks(self._written)

    def wrote(self, report: NodeReportStatus, now_s: float) -> None:
        """It was written."""
        self._written, self._written_at_s = report, now_s
