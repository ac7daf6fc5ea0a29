"""TrainJob of trainer.kubeflow.org/v1alpha1: the Kubeflow Trainer makes a JobSet of the same name of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from joulepath_operator.facts.observation import TrainingJob
from joulepath_operator.jobs.reading import named, replace_command, resource_of, training_job

__all__ = ["TRAIN_JOBS", "TrainJob"]

_KIND: Final = named("TrainJob")
TRAIN_JOBS: Final = resource_of(_KIND, "install the Kubeflow Trainer")


class TrainJob:
    """The `JobKind` of these."""

    resource: Final = TRAIN_JOBS
    pod_label: Final = named("JobSet").pod_label
    pods_made_by: Final = named("Job")
    denied: Final = "FailedCreate"

    def read(self, body: Mapping[str, Any]) -> TrainingJob:
        return training_job(_KIND, body, "Complete", body.get("spec"))

    def restart_command(self, namespace: str, job: str) -> str:
        """Its JobSet has to be gone before that of the next, which has the same name."""
        return replace_command(self.resource, namespace, job, "--cascade=foreground ")
