"""The kinds of training job that are supported, and which one a job is of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from joulepath_crds import JobReference
from joulepath_operator.facts.names import Resource
from joulepath_operator.jobs.interface import JobKind
from joulepath_operator.jobs.pytorchjob import PyTorchJob

__all__ = ["JOB_KINDS", "is_supported", "kind_of", "owning_job"]

JOB_KINDS: Final[tuple[JobKind, ...]] = (PyTorchJob(),)
_BY_REFERENCE: Final = {(kind.resource.api_version, kind.resource.kind): kind for kind in JOB_KINDS}


def is_supported(job: JobReference) -> bool:
    """Whether the kind of job that an EnergyPlan names is one of these."""
    return (job.api_version, job.kind) in _BY_REFERENCE


def kind_of(job: JobReference) -> JobKind:
    """The kind of job that an EnergyPlan names.

    Raises:
        KeyError: It isn't supported.
    """
    return _BY_REFERENCE[job.api_version, job.kind]


def owning_job(pod: Mapping[str, Any]) -> tuple[Resource, str] | None:
    """The resource and name of the job that controls a pod; None where no job of these kinds does."""
    for owner in (pod.get("metadata") or {}).get("ownerReferences") or ():
        for kind in JOB_KINDS:
            if owner.get("controller") and (name := kind.owned_job(owner)) is not None:
                return kind.resource, name
    return None
