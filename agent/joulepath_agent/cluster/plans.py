"""The JobPlans of a node's jobs as its agent reads them: heard of by their metadata, and of each job the youngest read.

A plan may have hundreds of kilobytes, and whoever may write one may write hundreds: what isn't played is never asked
for, and what is known is not asked for again. When a plan begins stands in its metadata, too, by its hash.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import pydantic

from joulepath_agent.cluster.failures import TooLargeError
from joulepath_clocks.peers.peer import JobKey
from joulepath_clocks.ranks.reason import Obstacle, Reason
from joulepath_crds import BEGINS_ANNOTATION, JOB_UID_LABEL, Begins, JobPlanSpec, content_hash

__all__ = ["Heard", "Plans"]

log = logging.getLogger(__name__)

_MOST: Final = 256
"""That name the jobs of a node: an EnergyPlan has one for each."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A JobPlan by its metadata, at a version."""

    uid: str
    version: str
    created: str
    name: str
    job: JobKey
    begins: Begins | None

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> Self:
        """From an object or its metadata alone."""
        metadata = item["metadata"]
        job = metadata["namespace"], (metadata.get("labels") or {}).get(JOB_UID_LABEL, "")
        told = (metadata.get("annotations") or {}).get(BEGINS_ANNOTATION, "")
        try:
            begins = Begins.model_validate_json(told) if told else None
        except pydantic.ValidationError:
            begins = None
        created = str(metadata.get("creationTimestamp"))
        return cls(metadata["uid"], str(metadata.get("resourceVersion")), created, metadata["name"], job, begins)


@dataclass(frozen=True, slots=True)
class _Read:
    """What a job plays: which object, at which version."""

    uid: str
    version: str
    plan: JobPlanSpec | Reason | None
    """Why it isn't played; None where it can't be read."""

    def at(self, heard: Heard) -> Self:
        """The same at another version, where that tells no more than when it begins."""
        plan, begins = self.plan, heard.begins
        is_known = (heard.uid, heard.version) == (self.uid, self.version)
        if is_known or not isinstance(plan, JobPlanSpec) or begins is None:
            return self
        if heard.uid != self.uid or begins.hash != plan.hash:
            return self
        changes = {"activate_at": begins.activate_at, "sparse_from": begins.sparse_from}
        return replace(self, version=heard.version, plan=plan.model_copy(update=changes))


class Plans:
    """Those of some jobs."""

    def __init__(self) -> None:
        self._heard: dict[str, Heard] = {}
        self._read: dict[JobKey, _Read] = {}

    def replace(self, items: Iterable[Mapping[str, Any]], jobs: Collection[JobKey]) -> None:
        """A list of all that there are of these jobs; others may be in it."""
        self._heard = {}
        for item in items:
            self.put(item, jobs)
        self._read = {job: read for job, read in self._read.items() if job in jobs}

    def put(self, item: Mapping[str, Any], jobs: Collection[JobKey]) -> None:
        """One is new or has changed.

        Raises:
            TooLargeError: There are more than anybody makes.
        """
        heard = Heard.of(item)
        if item["metadata"].get("deletionTimestamp") or heard.job not in jobs:
            self._heard.pop(heard.uid, None)
            return
        self._heard[heard.uid] = heard
        if len(self._heard) > _MOST:
            raise TooLargeError(f"more than {_MOST} JobPlans name jobs of this node; delete those of no EnergyPlan")

    def remove(self, item: Mapping[str, Any]) -> None:
        """One is gone."""
        self._heard.pop(item["metadata"]["uid"], None)

    def unread(self) -> Heard | None:
        """One to be read; None once there is no more."""
        for job, heard in self._youngest().items():
            if (read := self._read.get(job)) is not None:
                read = self._read[job] = read.at(heard)
            if read is None or (read.uid, read.version) != (heard.uid, heard.version):
                return heard
        return None

    def is_superseded(self, heard: Heard) -> bool:
        """Whether the plan that its job plays is surely another one than this, which is unread."""
        read, begins = self._read.get(heard.job), heard.begins
        if read is None or not isinstance(read.plan, JobPlanSpec):
            return False
        return heard.uid != read.uid or (begins is not None and begins.hash != read.plan.hash)

    def take(self, heard: Heard, item: Mapping[str, Any] | Reason | None) -> None:
        """One as it was read, which may be newer; or why it wasn't, or None, where it is gone."""
        if item is None or (not isinstance(item, Reason) and item["metadata"].get("deletionTimestamp")):
            self._heard.pop(heard.uid, None)
            return
        if isinstance(item, Reason):
            read = _Read(heard.uid, heard.version, item)
        else:
            self._heard[heard.uid] = heard = replace(Heard.of(item), uid=heard.uid, job=heard.job)
            read = _Read(heard.uid, heard.version, _plan(item, heard))
        if isinstance(read.plan, Reason):
            log.warning("JobPlan %s/%s isn't played: %s", heard.job[0], heard.name, read.plan)
        self._read[heard.job] = read

    def by_job(self) -> dict[JobKey, JobPlanSpec | Reason]:
        """What jobs play, or why they don't: of several plans the youngest."""
        read = ((heard, self._read.get(job)) for job, heard in self._youngest().items())
        plans = ((heard.job, one.plan) for heard, one in read if one is not None and one.uid == heard.uid)
        return {job: plan for job, plan in plans if plan is not None}

    def _youngest(self) -> dict[JobKey, Heard]:
        return {heard.job: heard for heard in sorted(self._heard.values(), key=lambda heard: heard.created)}


def _plan(item: Mapping[str, Any], heard: Heard) -> JobPlanSpec | Reason | None:
    try:
        plan = JobPlanSpec.from_api(item["spec"]).unpacked()
    except (KeyError, ValueError) as error:
        log.warning("JobPlan %s/%s can't be read: %s", heard.job[0], heard.name, error)
        return None
    if plan.job_uid != heard.job[1]:
        log.warning("JobPlan %s/%s isn't read: its label names another job", heard.job[0], heard.name)
        return None
    if (found := content_hash(item["spec"])) != plan.hash:
        return Reason(Obstacle.HASH_MISMATCH, f"the plan's hash is {plan.hash}, that of its content {found}")
    return plan
