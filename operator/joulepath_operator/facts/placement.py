"""Which ranks of a job count: those of its own pods, told by the node where the pod runs.

An agent, and whoever has its token, can write the report of its own node alone, but there whatever it likes: jobs that
have no pod on the node, attempts of the future, times that nobody measured. Where a pod runs the API server knows, by
its UID.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from joulepath_operator.facts.observation import NodeJob

__all__ = ["nodes_by_pod", "parted"]


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
