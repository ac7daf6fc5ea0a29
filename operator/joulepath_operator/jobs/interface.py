"""What must be known of a kind of training job to plan for it. A new kind is one more module that tells this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from joulepath_crds import JobKindName
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
    def pod_label(self) -> str:
        """The label of its pods that has the job's name."""
        ...

    @property
    def pods_made_by(self) -> JobKindName:
        """The kind whose objects make its pods: itself, or what it has made."""
        ...

    @property
    def denied(self) -> str:
        """The reason of the Events at these, where the API server has refused a pod."""
        ...

    def restart_command(self, namespace: str, job: str) -> str:
        """What a user types to start a job anew as it is, so that its pods are made again."""
        ...
