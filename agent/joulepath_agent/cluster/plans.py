"""The JobPlans of a node's jobs as its agent reads them: each parsed when it comes or changes, and not again."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pydantic

from joulepath_clocks.peers.peer import JobKey
from joulepath_clocks.ranks.reason import Obstacle, Reason
from joulepath_crds import JobPlanSpec, content_hash

__all__ = ["Plans"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Read:
    """A JobPlan as it was at a version."""

    version: str
    created: str
    job: JobKey
    plan: JobPlanSpec | Reason | None
    """Why it isn't played, where its content is another one than its hash says; None where it can't be read or is
    being deleted."""


class Plans:
    """All JobPlans, by the UIDs of their objects."""

    def __init__(self) -> None:
        self._read: dict[str, _Read] = {}

    def are(self, items: Iterable[Mapping[str, Any]]) -> bool:
        """Whether these are all of them, at the versions that were read; metadata is enough."""
        return {item["metadata"]["uid"]: _version(item) for item in items} == {
            uid: read.version for uid, read in self._read.items()
        }

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

    def by_job(self) -> dict[JobKey, JobPlanSpec | Reason]:
        """Those that can be read, the youngest where a job has several."""
        oldest_first = sorted(self._read.values(), key=lambda read: read.created)
        return {read.job: read.plan for read in oldest_first if read.plan is not None}


def _version(item: Mapping[str, Any]) -> str:
    return str(item["metadata"].get("resourceVersion"))


def _read(item: Mapping[str, Any]) -> _Read:
    metadata, job_uid = item["metadata"], ""
    plan: JobPlanSpec | Reason | None = None
    if not metadata.get("deletionTimestamp"):
        try:
            plan = JobPlanSpec.from_api(item["spec"])
            job_uid = plan.job_uid
            if (found := content_hash(item["spec"])) != plan.hash:
                plan = Reason(Obstacle.HASH_MISMATCH, f"the plan's hash is {plan.hash}, that of its content {found}")
                log.warning("JobPlan %s/%s isn't played: %s", metadata["namespace"], metadata["name"], plan)
        except (KeyError, pydantic.ValidationError) as error:
            log.warning("JobPlan %s/%s can't be read: %s", metadata["namespace"], metadata["name"], error)
    return _Read(_version(item), str(metadata.get("creationTimestamp")), (metadata["namespace"], job_uid), plan)
