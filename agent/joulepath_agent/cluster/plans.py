"""The JobPlans of the cluster as this agent reads them: each parsed when it comes or changes, and not again.

A plan of a long pipeline is hundreds of kilobytes; every write to any plan of the cluster is an event here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pydantic

from joulepath_agent.peers.peer import JobKey
from joulepath_crds import JobPlanSpec

__all__ = ["Plans"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Read:
    """A JobPlan as it was at a version."""

    version: str
    created: str
    namespace: str
    spec: JobPlanSpec | None
    """None where it can't be read or is being deleted."""


class Plans:
    """All JobPlans, by the UIDs of their objects."""

    def __init__(self) -> None:
        self._read: dict[str, _Read] = {}

    def replace(self, items: Iterable[Mapping[str, Any]]) -> None:
        """A list: what isn't in it is gone."""
        before = self._read
        self._read = {}
        for item in items:
            known = before.get(item["metadata"]["uid"])
            self._read[item["metadata"]["uid"]] = known if known and known.version == _version(item) else _read(item)

    def put(self, item: Mapping[str, Any]) -> None:
        """One is new or has changed."""
        self._read[item["metadata"]["uid"]] = _read(item)

    def remove(self, item: Mapping[str, Any]) -> None:
        """One is gone."""
        self._read.pop(item["metadata"]["uid"], None)

    def by_job(self) -> dict[JobKey, JobPlanSpec]:
        """Those that can be read, the youngest where a job has several."""
        oldest_first = sorted(self._read.values(), key=lambda read: read.created)
        return {(read.namespace, read.spec.job_uid): read.spec for read in oldest_first if read.spec is not None}


def _version(item: Mapping[str, Any]) -> str:
    return str(item["metadata"].get("resourceVersion"))


def _read(item: Mapping[str, Any]) -> _Read:
    metadata, spec = item["metadata"], None
    if not metadata.get("deletionTimestamp"):
        try:
            spec = JobPlanSpec.from_api(item["spec"])
        except (KeyError, pydantic.ValidationError) as error:
            log.warning("JobPlan %s/%s can't be read: %s", metadata["namespace"], metadata["name"], error)
    return _Read(_version(item), str(metadata.get("creationTimestamp")), metadata["namespace"], spec)
