"""What the objects of all kinds of job have in common: conditions, Kueue's label, our annotation, who has made them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from joulepath_crds import ANNOTATION, JOB_NAMES, JobKindName, maker
from joulepath_operator.facts.labels import first_written
from joulepath_operator.facts.names import Resource
from joulepath_operator.facts.observation import TrainingJob

__all__ = ["named", "resource_of", "training_job"]

_QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"


def named(kind: str) -> JobKindName:
    """A kind by its name."""
    return next(one for one in JOB_NAMES if one.kind == kind)


def resource_of(kind: JobKindName, remedy: str) -> Resource:
    """Where its objects are; a cluster needn't know them."""
    return Resource(kind.group, kind.version, kind.plural, kind.kind, remedy, optional=True)


def training_job(kind: JobKindName, body: Mapping[str, Any], succeeded: str, *, suspended: bool) -> TrainingJob:
    """A job from its object.

    Args:
        kind: Its kind.
        body: The object.
        succeeded: The condition that tells so; that of failure is `Failed` with all kinds.
        suspended: Whether it isn't to run now, by what is asked for, as Kueue does: conditions come after that, and go
            after it.
    """
    metadata, status = body["metadata"], body.get("status") or {}
    true = {one["type"] for one in status.get("conditions") or () if one.get("status") == "True"}
    ends = {succeeded: "Succeeded", "Failed": "Failed"}
    return TrainingJob(
        uid=metadata["uid"],
        name=metadata["name"],
        annotation=(metadata.get("annotations") or {}).get(ANNOTATION),
        finished=next((end for condition, end in ends.items() if condition in true), None),
        suspended=suspended,
        queue=(metadata.get("labels") or {}).get(_QUEUE_LABEL, ""),
        annotated_at=first_written(metadata, "annotations", ANNOTATION),
        made_by=maker(kind, metadata),
    )
