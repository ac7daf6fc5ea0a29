"""Which ranks of a job count: those of its own pods, told by the node where the pod runs.

An agent, and whoever has its token, can write the report of its own node alone, but there whatever it likes: jobs that
have no pod on the node, attempts of the future, times that nobody measured. Where a pod runs the API server knows, by
its UID. That is kept from look to look: pods are listed where a report names one that isn't known, and while all ranks
of a gang stand every 15 s at most, so that whoever makes up pods costs the API server little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.observation import NodeJob

__all__ = ["Places", "nodes_by_pod", "parted"]

_ASKED_AGAIN_S: Final = 15.0


class Places:
    """Where the pods of an EnergyPlan's job run: nowhere at first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._job_uid, self._nodes, self._asked_s = "", dict[str, str](), float("-inf")

    def put(self, job_uid: str, pods: Iterable[Mapping[str, Any]]) -> None:
        """Takes in all pods of a job as they are now."""
        self._job_uid, self._nodes, self._asked_s = job_uid, nodes_by_pod(pods), self._clock()

    def standing(self, job_uid: str, told: Iterable[NodeJob]) -> tuple[tuple[NodeJob, ...], bool]:
        """What nodes tell of ranks whose pods are there, and whether the job's pods are to be listed anew."""
        nodes, left_out = parted(told, self._nodes if job_uid == self._job_uid else {})
        gang = Gang.of(nodes)
        whole = gang is not None and gang.complete
        return nodes, not whole or (left_out and self._clock() - self._asked_s >= _ASKED_AGAIN_S)


def nodes_by_pod(pods: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The nodes of those pods that have one, by the pod's UID."""
    return {pod["metadata"]["uid"]: node for pod in pods if (node := pod["spec"].get("nodeName"))}


def parted(told: Iterable[NodeJob], places: Mapping[str, str]) -> tuple[tuple[NodeJob, ...], bool]:
    """What nodes tell of a job, with those ranks alone whose pod is there, and whether that left any out.

    Args:
        told: By the nodes, as they like.
        places: The nodes of the job's pods, by UID.
    """
    standing, left_out = [], False
    for one in told:
        ranks = tuple(rank for rank in one.report.ranks if places.get(rank.pod_uid) == one.node)
        if len(ranks) < len(one.report.ranks):
            left_out, one = True, replace(one, report=one.report.model_copy(update={"ranks": ranks}))
        standing.append(one)
    return tuple(standing), left_out
