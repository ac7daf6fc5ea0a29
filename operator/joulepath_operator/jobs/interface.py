"""What must be known of a kind of training job to plan for it. A new kind is one more module that tells this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from joulepath_operator.facts.names import Resource
from joulepath_operator.facts.observation import TrainingJob

__all__ = ["JobKind"]


class JobKind(Protocol):
    """A kind of training job, such as PyTorchJob."""

    @property
    def resource(self) -> Resource:
        """Where its objects are; `resource.kind` is its name in sentences."""
        ...

    def read(self, body: Mapping[str, Any]) -> TrainingJob:
        """A job, as far as it matters here, from its object."""
        ...

    @property
    def all_pods(self) -> str:
        """Selects the pods of all jobs by their labels."""
        ...

    def pod_selector(self, job: str) -> str:
        """Selects the pods of a job by their labels."""
        ...

    def owned_job(self, owner: Mapping[str, Any]) -> str | None:
        """The name of the job that a pod's controlling owner reference stands for; None where it is of another kind."""
        ...

    def restart_command(self, namespace: str, job: str) -> str:
        """What a user types to start a job anew as it is, so that its pods are made again."""
        ...
