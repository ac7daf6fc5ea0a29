"""PyTorchJob of kubeflow.org/v1, as the Kubeflow training-operator runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from joulepath_operator.facts.observation import TrainingJob
from joulepath_operator.jobs.reading import named, replace_command, resource_of, training_job

__all__ = ["PYTORCH_JOBS", "PyTorchJob"]

_KIND: Final = named("PyTorchJob")
PYTORCH_JOBS: Final = resource_of(_KIND, "install the Kubeflow training-operator")


class PyTorchJob:
    """The `JobKind` of these."""

    resource: Final = PYTORCH_JOBS
    pod_label: Final = _KIND.pod_label
    pods_made_by: Final = _KIND
    denied: Final = "FailedCreatePod"

    def read(self, body: Mapping[str, Any]) -> TrainingJob:
        return training_job(_KIND, body, "Succeeded", (body.get("spec") or {}).get("runPolicy"))

    def restart_command(self, namespace: str, job: str) -> str:
        return replace_command(self.resource, namespace, job)
