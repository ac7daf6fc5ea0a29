"""A pod of the job as the API server has it, turned into what a decision needs of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from joulepath_operator.control.index import Index
from joulepath_operator.facts.absence import Means
from joulepath_operator.facts.admission import Admission
from joulepath_operator.facts.observation import Pod, TrainingJob
from joulepath_operator.injection.diagnosis import diagnose

__all__ = ["as_seen"]

_STARTING: Final = frozenset({"PodInitializing", "ContainerCreating"})


def as_seen(
    pod: Mapping[str, Any], job: TrainingJob, index: Index, means: Means, admission: Admission | None, now: str
) -> Pod:
    """Its node, why it doesn't run yet, and why it has no trainer."""
    node = pod["spec"].get("nodeName")
    report = index.report(node) if node else None
    return Pod(
        name=pod["metadata"]["name"],
        node=node,
        waiting=_waiting(pod.get("status") or {}),
        absence=diagnose(pod, report, means, admission, job.annotated_at, now),
    )


def _waiting(status: Mapping[str, Any]) -> str | None:
    """Why the containers of a pod don't run, in the kubelet's or the scheduler's words; None if they do."""
    if status.get("phase") == "Running":
        return None
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    reasons = [waiting.get("reason") for one in containers if (waiting := (one.get("state") or {}).get("waiting"))]
    if said := [reason for reason in reasons if reason not in _STARTING]:
        return str(said[0])
    for one in status.get("conditions") or ():
        if one["type"] == "PodScheduled" and one["status"] == "False":
            return f"{one.get('reason')}: {one.get('message')}"
    return str(status.get("phase"))
