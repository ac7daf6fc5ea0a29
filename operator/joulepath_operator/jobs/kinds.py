"""The kinds of training job that are supported, and which one a job is of."""

from __future__ import annotations

from typing import Final

from joulepath_crds import JobReference
from joulepath_operator.jobs.interface import JobKind
from joulepath_operator.jobs.job import Job
from joulepath_operator.jobs.jobset import JobSet
from joulepath_operator.jobs.pytorchjob import PyTorchJob
from joulepath_operator.jobs.trainjob import TrainJob

__all__ = ["JOB_KINDS", "is_supported", "kind_of"]

JOB_KINDS: Final[tuple[JobKind, ...]] = (PyTorchJob(), TrainJob(), JobSet(), Job())
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
