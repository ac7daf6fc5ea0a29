"""Job of batch/v1, Kubernetes' own: indexed, where it trains on several pods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from joulepath_operator.facts.observation import TrainingJob
from joulepath_operator.jobs.reading import named, resource_of, training_job

__all__ = ["JOBS", "Job"]

_KIND: Final = named("Job")
JOBS: Final = resource_of(_KIND, "see whether its API server is well")


class Job:
    """The `JobKind` of these."""

    resource: Final = JOBS
    pod_label: Final = _KIND.pod_label
    pods_made_by: Final = _KIND
    denied: Final = "FailedCreate"

    def read(self, body: Mapping[str, Any]) -> TrainingJob:
        return training_job(_KIND, body, "Complete", body.get("spec"))

    def restart_command(self, namespace: str, job: str) -> str:
        """Suspended and resumed: it has a selector of its own, with which no other can be made from it."""
        patch = f"kubectl -n {namespace} patch job {job} -p"
        suspended = f"kubectl -n {namespace} wait job {job} --for=condition=Suspended"
        return f"""{patch} '{{"spec":{{"suspend":true}}}}' && {suspended} && {patch} '{{"spec":{{"suspend":false}}}}'"""
