"""When a report is worth a write: at once where the operator waits for what changed, else seldom.

Reports are the cluster's largest and most frequent writes: etcd keeps every version until it compacts. Pure; the clock
comes in.
"""

from __future__ import annotations

from typing import Final

from joulepath_crds import REPORT_INTERVAL_S, NodeReportStatus

__all__ = ["Pace", "awaited"]

_SOON_S: Final = 0.5
_BLOCKS_S: Final = 5.0


def awaited(report: NodeReportStatus) -> object:
    """The part of a report that the operator acts on."""
    return [(gpu.uuid, gpu.refused, gpu.lag is None) for gpu in report.gpus], [
        (
            (job.job_uid, job.attempt, rank.rank, rank.pod_uid, rank.gpu_uuid, rank.order, bool(rank.control_time_s)),
            (rank.state, rank.staged_hash, rank.applied_hash, rank.reason.partition(":")[0]),
        )
        for job in report.jobs
        for rank in job.ranks
    ]


def _blocks(report: NodeReportStatus) -> object:
    return [[(block.hash, block.block) for block in rank.blocks[-1:]] for job in report.jobs for rank in job.ranks]


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
        return since_s >= _BLOCKS_S and _blocks(report) != _blocks(self._written)

    def wrote(self, report: NodeReportStatus, now_s: float) -> None:
        """It was written."""
        self._written, self._written_at_s = report, now_s
