"""JobSet of jobset.x-k8s.io/v1alpha2: it makes Jobs, and these its pods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from joulepath_operator.facts.observation import TrainingJob
from joulepath_operator.jobs.reading import named, replace_command, resource_of, training_job

__all__ = ["JOB_SETS", "JobSet"]

_KIND: Final = named("JobSet")
JOB_SETS: Final = resource_of(_KIND, "install JobSet")


class JobSet:
    """The `JobKind` of these."""

    resource: Final = JOB_SETS
    pod_label: Final = _KIND.pod_label
    pods_made_by: Final = named("Job")
    denied: Final = "FailedCreate"

    def read(self, body: Mapping[str, Any]) -> TrainingJob:
        return training_job(_KIND, body, "Completed", body.get("spec"))

    def restart_command(self, namespace: str, job: str) -> str:
        """Its Jobs have to be gone before those of the next, which have the same names."""
        return replace_command(self.resource, namespace, job, "--cascade=foreground ")
