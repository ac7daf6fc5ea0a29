"""When a part of a report is worth a write: at once where a plan waits for what changed, else seldom. And its size.

Reports are the cluster's most frequent writes. What ranks do now goes once a minute, as a sign of life; what they
measured where it makes a figure that people see notably more exact; what the node is where it changes. Guards are the
node's own: what they find is told at once. The larger a job, the longer its nodes wait, so that they don't write more
often together; and each waits for as long as chance has it, or all would write at once.
Pure; the clock comes in.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Final

from joulepath_crds import REPORT_INTERVAL_S, Arm, NodeReportStatus, RankReport, RankState, learnt_from

__all__ = ["Looks", "Pace", "fitting", "of_facts", "of_measurements", "of_state"]

_SOON_S: Final = 0.5
_INJECTION_S: Final = 5.0
"""Pods may come and go by the second."""
_FACTS_S: Final = 300.0
"""What is known of GPUs becomes more exact with each switch; plans are made of what is known then."""
_MEASURED_S: Final = 5.0, 120.0
"""Blocks that are waited for, in a small job, and in one so large that they are looked at for minutes."""
_FIRST_PAIRS: Final = 4
"""Pairs of blocks are waited for when savings can first be told of them, and with each half of a doubling since: the
interval is narrower by a sixth then."""
_RANKS_A_SECOND: Final = 16.0
"""So many ranks have a node wait a second longer: all nodes of a job together write measurements twice a second."""
_MORE_EXACT: Final = 6.0
"""As many times as long what is only more exact waits."""
_EXACT: Final = 0.25, 300.0
"""Or for that share of the time that the job has run, up to so long: by then there is as much more of it. So long it
waits while a plan is in force, and so do pairs of blocks that only add to a figure."""
_EARLIEST: Final = 0.75
"""Of the time that it may wait: how early it may be written."""

Looks = Iterator[tuple[float, object]]
"""Parts of what is told, each with how long one that has changed may wait, the soonest first. None is no news."""


def of_facts(report: NodeReportStatus) -> Looks:
    """What is so of the node."""
    yield _SOON_S, report.policy  # who pauses all plans waits for it
    yield _SOON_S, [(gpu.uuid, gpu.refused, gpu.lag is None) for gpu in report.gpus]
    yield _INJECTION_S, (report.injector, report.injector_why, report.injection, report.old_pythons)
    yield _FACTS_S, (report.agent_version, report.gpus)


def of_state(report: NodeReportStatus) -> Looks:
    """What ranks do now."""
    ranks = [(job, rank) for job in report.jobs for rank in job.ranks]
    yield (
        _SOON_S,
        [
            (
                (job.job_uid, job.attempt, rank.rank, rank.pod_uid, rank.gpu_uuid),
                (
                    bool(rank.iteration),
                    bool(rank.control_time_s),
                    rank.state,
                    rank.staged_hash,
                    rank.applied_hash,
                    rank.slowdown,
                ),
                rank.reason.partition(":")[0],
            )
            for job, rank in ranks
        ],
    )
    now = [(rank.iteration, rank.iteration_time_s, rank.control_time_s, rank.reason) for _, rank in ranks]
    yield REPORT_INTERVAL_S, now


def of_measurements(report: NodeReportStatus) -> Looks:
    """What was measured, of a sweep once it is over: nobody acts on half of one. How instructions run under a plan,
    which is told with the rest, is no reason to tell it."""
    ranks = [rank for job in report.jobs for rank in job.ranks]
    least_s, most_s = _MEASURED_S
    new_s = min(most_s, max(least_s, _ranks(report) / _RANKS_A_SECOND))
    sweeping = any(rank.state is RankState.SWEEPING for rank in ranks)
    yield _SOON_S, [(rank.pod_uid, rank.rank, rank.order, bool(rank.timeline)) for rank in ranks]
    yield _SOON_S, None if sweeping else [_clocks(rank) for rank in ranks]
    awaited = [_awaited(rank) for rank in ranks]
    yield new_s, awaited if any(awaited) and not sweeping else None
    share, longest_s = _EXACT
    yield longest_s, [_pairs(rank) for rank in ranks] if any(awaited) and not sweeping else None
    lags = [gpu.lag and gpu.lag.targets for gpu in report.gpus]
    more_exact = [(rank.instructions, rank.waits, rank.timeline) for rank in ranks], lags
    run_s = max((rank.iteration * rank.iteration_time_s for rank in ranks), default=0.0)
    exact_s = longest_s if all(rank.applied_hash for rank in ranks) else min(longest_s, share * run_s)
    yield max(new_s * _MORE_EXACT, exact_s), None if sweeping else more_exact


def _ranks(report: NodeReportStatus) -> int:
    return max((job.world_size for job in report.jobs), default=0)


def _awaited(rank: RankReport) -> object:
    """What changes where somebody waits for blocks: in a sweep with each, else as there are more pairs."""
    if not rank.blocks:
        return None
    last, pairs = rank.blocks[-1], sum(block.block % 2 for block in rank.blocks)
    if last.arm is Arm.SWEEP:
        return last.hash, last.block
    return (last.hash, int(2 * math.log2(pairs / _FIRST_PAIRS))) if pairs >= _FIRST_PAIRS else None


def _pairs(rank: RankReport) -> object:
    """Which was the last, or has begun in place of it."""
    return [(block.hash, (block.block + 1) // 2) for block in rank.blocks[-1:]]


def _clocks(rank: RankReport) -> frozenset[tuple[int, str, int]]:
    return frozenset((one.stage, one.kind, one.clock_mhz) for one in rank.instructions if one.known)


def fitting(report: NodeReportStatus, most_bytes: int) -> NodeReportStatus:
    """The report with the timelines that somebody learns from, no larger than that: first without what ranks did under
    a plan, then without their measurements.

    Those of the ranks that tell most go first. Nothing is planned by a timeline under a plan.
    """
    report = _of_ranks(report, _learnt)
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
    return _of_ranks(report, lambda rank: shed.get(id(rank), rank))


def _of_ranks(report: NodeReportStatus, change: Callable[[RankReport], RankReport]) -> NodeReportStatus:
    jobs = (job.model_copy(update={"ranks": tuple(map(change, job.ranks))}) for job in report.jobs)
    return report.model_copy(update={"jobs": tuple(jobs)})


def _learnt(rank: RankReport) -> RankReport:
    place = rank.coordinates.data, rank.coordinates.tensor
    is_learnt = place in learnt_from(rank.data_parallel, rank.tensor_parallel)
    return rank if is_learnt else rank.model_copy(update={"timeline": (), "plan_timeline": ()})


def _bytes(part: NodeReportStatus | RankReport) -> int:
    return len(part.model_dump_json(by_alias=True, exclude_none=True))


def _unplanned(rank: RankReport) -> RankReport:
    return rank.model_copy(update={"plan_timeline": ()})


def _bare(rank: RankReport) -> RankReport:
    why = rank.reason or "OverBudget: this rank's measurements are left out, the report of its node would be too large"
    measured = dict.fromkeys(("timeline", "plan_timeline", "instructions", "waits", "blocks"), ())
    return rank.model_copy(update={**measured, "reason": why})


def _by_chance() -> float:
    return random.uniform(_EARLIEST, 1.0)


class Pace:
    """Of one part: remembers what of it was written when."""

    def __init__(self, looks: Callable[[NodeReportStatus], Looks], chance: Callable[[], float] = _by_chance) -> None:
        """`chance` says how much of the time that it may wait it does."""
        self._looks, self._chance = looks, chance
        self._written: list[object] | None = None
        self._written_at_s, self._share = 0.0, 1.0

    def due(self, report: NodeReportStatus, now_s: float) -> bool:
        """Whether to write this part of it now."""
        if self._written is None:
            return True
        waited_s = (now_s - self._written_at_s) / self._share
        return any(
            waited_s >= after_s and new is not None and new != old
            for (after_s, new), old in zip(self._looks(report), self._written, strict=True)
        )

    def wrote(self, report: NodeReportStatus, now_s: float) -> None:
        """It was written."""
        before = self._written or repeat(None)
        self._written = [
            old if new is None else new for (_, new), old in zip(self._looks(report), before, strict=False)
        ]
        self._written_at_s, self._share = now_s, self._chance()
