"""PyTorchJob of kubeflow.org/v1, as the Kubeflow training-operator runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from joulepath_crds import ANNOTATION
from joulepath_operator.facts.labels import first_written
from joulepath_operator.facts.names import Resource
from joulepath_operator.facts.observation import TrainingJob

__all__ = ["PYTORCH_JOBS", "PyTorchJob"]

PYTORCH_JOBS: Final = Resource(
    "kubeflow.org", "v1", "pytorchjobs", "PyTorchJob", remedy="install the Kubeflow training-operator"
)
_JOB_NAME_LABEL: Final = "training.kubeflow.org/job-name"
_QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"


class PyTorchJob:
    """The `JobKind` of these."""

    resource: Final = PYTORCH_JOBS
    all_pods: Final = _JOB_NAME_LABEL

    def read(self, body: Mapping[str, Any]) -> TrainingJob:
        metadata, status = body["metadata"], body.get("status") or {}
        true = {one["type"] for one in status.get("conditions") or () if one.get("status") == "True"}
        return TrainingJob(
            uid=metadata["uid"],
            name=metadata["name"],
            annotation=(metadata.get("annotations") or {}).get(ANNOTATION),
            finished=next((end for end in ("Succeeded", "Failed") if end in true), None),
            suspended=_suspended(body),
            queue=(metadata.get("labels") or {}).get(_QUEUE_LABEL, ""),
            annotated_at=first_written(metadata, "annotations", ANNOTATION),
        )

    def pod_selector(self, job: str) -> str:
        return f"{_JOB_NAME_LABEL}={job}"

    def owned_job(self, owner: Mapping[str, Any]) -> str | None:
        ours = (owner["kind"], owner["apiVersion"]) == (self.resource.kind, self.resource.api_version)
        return str(owner["name"]) if ours else None

    def restart_command(self, namespace: str, job: str) -> str:
        where = f"-n {namespace}"
        return f"kubectl {where} get {self.resource.singular} {job} -o yaml | kubectl {where} replace --force -f -"


def _suspended(body: Mapping[str, Any]) -> bool:
    """By what is asked for, as Kueue does: the training operator's condition comes after it, and goes after it."""
    policy = (body.get("spec") or {}).get("runPolicy") or {}
    return policy.get("suspend") is True
