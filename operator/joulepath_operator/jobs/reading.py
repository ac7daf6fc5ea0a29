"""What the objects of all kinds of job have in common: conditions, Kueue's label, our annotation, who has made them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from joulepath_crds import ANNOTATION, JOB_NAMES, JobKindName, maker
from joulepath_operator.facts.labels import STRAGGLER_ANNOTATION, first_written
from joulepath_operator.facts.names import Resource
from joulepath_operator.facts.observation import TrainingJob

__all__ = ["named", "replace_command", "resource_of", "training_job"]

_QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"


def named(kind: str) -> JobKindName:
    """A kind by its name."""
    return next(one for one in JOB_NAMES if one.kind == kind)


def resource_of(kind: JobKindName, remedy: str) -> Resource:
    """Where its objects are; a cluster needn't know them."""
    return Resource(kind.group, kind.version, kind.plural, kind.kind, remedy, optional=True)


def replace_command(resource: Resource, namespace: str, job: str, options: str = "") -> str:
    """What a user types to have a job deleted and made again as it is."""
    where = f"-n {namespace}"
    return f"kubectl {where} get {resource.singular} {job} -o yaml | kubectl {where} replace --force {options}-f -"


def training_job(
    kind: JobKindName, body: Mapping[str, Any], succeeded: str, policy: Mapping[str, Any] | None
) -> TrainingJob:
    """A job from its object.

    Args:
        kind: Its kind.
        body: The object.
        succeeded: The condition that tells so; that of failure is `Failed` with all kinds.
        policy: Where the object asks for it to be suspended, as Kueue does: conditions come after that, and go after
            it.
    """
    metadata, status = body["metadata"], body.get("status") or {}
    annotations = metadata.get("annotations") or {}
    true = {one["type"] for one in status.get("conditions") or () if one.get("status") == "True"}
    ends = {succeeded: "Succeeded", "Failed": "Failed"}
    return TrainingJob(
        uid=metadata["uid"],
        name=metadata["name"],
        annotation=annotations.get(ANNOTATION),
        straggler=annotations.get(STRAGGLER_ANNOTATION),
        finished=next((end for condition, end in ends.items() if condition in true), None),
        suspended=(policy or {}).get("suspend") is True,
        queue=(metadata.get("labels") or {}).get(_QUEUE_LABEL, ""),
        annotated_at=first_written(metadata, "annotations", ANNOTATION),
        made_by=maker(kind, metadata),
    )
