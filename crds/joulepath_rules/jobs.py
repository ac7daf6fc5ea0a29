"""The kinds of training job by their names in Kubernetes, and how the job is found that a pod belongs to.

A job may have made another: a TrainJob a JobSet, a JobSet Jobs, and these the pods. The topmost is the job; what it has
made is none of its own. Labels and owner references are the word of whoever made an object, and name jobs of its own
namespace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["JOB_LABELS", "JOB_NAMES", "JobKindName", "JobName", "by_labels", "controller", "maker"]


@dataclass(frozen=True, slots=True)
class JobKindName:
    """A kind of job."""

    kind: str
    group: str
    version: str
    plural: str
    pod_label: str = ""
    """On its pods, with the job's name; empty where they have only those of what it makes."""
    made_by: str = ""
    """The kind of job that may have made it; empty where none does."""
    counts_restarts: bool = False
    """Whether it fails for good once containers of its pods, init containers too, were started anew a few times."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}"


@dataclass(frozen=True, slots=True)
class JobName:
    """A job, in whatever namespace; `uid` is empty where it isn't said which of that name."""

    kind: JobKindName
    name: str
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.kind.kind} {self.name}"


JOB_NAMES: Final = (
    JobKindName("PyTorchJob", "kubeflow.org", "v1", "pytorchjobs", "training.kubeflow.org/job-name"),
    JobKindName("TrainJob", "trainer.kubeflow.org", "v1alpha1", "trainjobs"),
    JobKindName("JobSet", "jobset.x-k8s.io", "v1alpha2", "jobsets", "jobset.sigs.k8s.io/jobset-name", "TrainJob"),
    JobKindName("Job", "batch", "v1", "jobs", "batch.kubernetes.io/job-name", "JobSet", True),
)
"""All that are supported; of two that a pod has labels of, the one above comes first."""
JOB_LABELS: Final = tuple(kind.pod_label for kind in JOB_NAMES if kind.pod_label)


def by_labels(labels: Mapping[str, str]) -> JobName | None:
    """The job of a pod with these labels, or what that has made; None where it has none of `JOB_LABELS`."""
    return next(
        (JobName(kind, labels[kind.pod_label]) for kind in JOB_NAMES if labels.get(kind.pod_label)),
        None,
    )


def controller(metadata: Mapping[str, Any]) -> JobName | None:
    """The job that controls an object, by its owner references; None where none of these kinds does."""
    for owner in metadata.get("ownerReferences") or ():
        for kind in JOB_NAMES:
            if owner.get("controller") and (owner["kind"], owner["apiVersion"]) == (kind.kind, kind.api_version):
                return JobName(kind, owner["name"], owner["uid"])
    return None


def maker(kind: JobKindName, metadata: Mapping[str, Any]) -> JobName | None:
    """The job that has made a job of this kind; None where it is the topmost."""
    found = controller(metadata)
    return found if found is not None and found.kind.kind == kind.made_by else None
