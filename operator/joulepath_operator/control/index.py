"""What the watches have told, by name, and which EnergyPlans each object concerns.

Only a cache: it is filled by a list at the start, kept by watch events, and replaced by a list now and then, which
also takes out what was deleted while no watch was open. An object that can't be read is left out and logged. Of one
that was deleted its UID is remembered for a while: what is still told of it is old, and doesn't bring it back.

What a node tells in three objects is put together as it comes, not at each look.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from threading import RLock
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from joulepath_crds import (
    GROUP,
    JOB_UID_LABEL,
    MOST_PLAN_BYTES,
    POLICY_NAME,
    EnergyPolicySpec,
    EnergyProfileSpec,
    JobName,
    JobPlanSpec,
    Measurements,
    NodeMeasurementStatus,
    NodeReportStatus,
    RankMeasurements,
    RankReport,
    content_hash,
    joined,
    read_policy,
)
from joulepath_operator.facts.labels import INPUTS_ANNOTATION
from joulepath_operator.facts.names import (
    ENERGY_PLANS,
    ENERGY_POLICIES,
    ENERGY_PROFILES,
    JOB_PLANS,
    NODE_MEASUREMENTS,
    NODE_REPORTS,
    NODE_STATES,
    NamespacedName,
    Resource,
)
from joulepath_operator.facts.observation import NodeJob, StoredPlan, StoredProfile, TrainingJob
from joulepath_operator.figures.order import check_labels
from joulepath_operator.jobs.kinds import JOB_KINDS

__all__ = ["WATCHED", "Index"]

log = logging.getLogger(__name__)

Rank = TypeVar("Rank", RankReport, RankMeasurements)

_OF_NODES: Final = (NODE_REPORTS, NODE_STATES, NODE_MEASUREMENTS)
WATCHED: Final = (
    *(ENERGY_POLICIES, ENERGY_PLANS, ENERGY_PROFILES, JOB_PLANS, *_OF_NODES),
    *(kind.resource for kind in JOB_KINDS),
)
_JOB_KINDS: Final = {kind.resource: kind for kind in JOB_KINDS}
_BY_NAME: Final = {kind.resource.kind: kind.resource for kind in JOB_KINDS}
_SILENT_S: Final = 180.0, 360.0
"""In a small job, and at most: nodes of a large one may wait for an API server that is late."""
_SILENT_S_A_RANK: Final = 0.375
_GRAVE_S: Final = 900.0
"""How long a deleted object is remembered: longer than any event of it can be under way."""


_MOST_LABELS: Final = 2**20
"""Of all orders of ranks that are shared: 60 MB, and 8 jobs of 64 stages and 512 microbatches. A node may tell of
another order each time."""


@dataclass(frozen=True, slots=True)
class _Report:
    """What a node tells, a part or all; of all, when it told of its ranks last."""

    status: NodeReportStatus
    arrived_s: float


@dataclass(frozen=True, slots=True)
class _Known:
    """The newest that was told of a name; `gone_s` is when it was deleted, None while it is there."""

    uid: str
    version: int
    gone_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Owned:
    """A JobPlan, the EnergyPlan that it names, and the UIDs of its owners."""

    plan: StoredPlan
    energy_plan: str
    owners: frozenset[str]


class _Orders:
    """Orders that ranks told of lately, each of them once: a job has one for each stage."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._labels = 0

    def shared(self, order: tuple[str, ...]) -> tuple[str, ...]:
        """The same one, as it was told first."""
        known = self._known.pop(order, None)
        if known is None:
            known, self._labels = order, self._labels + len(order)
        self._known[known] = known
        while self._labels > _MOST_LABELS:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._labels -= len(oldest)
        return known


class Index:
    """Objects by (namespace, name); `clock` is the monotonic clock that tells how old a report is.

    Threads may share it: one writes at a time, and whatever is walked through is copied first.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._objects: dict[Resource, dict[NamespacedName, Any]] = {resource: {} for resource in WATCHED}
        self._known: dict[Resource, dict[NamespacedName, _Known]] = {resource: {} for resource in WATCHED}
        self._nodes: dict[NamespacedName, _Report] = {}
        self._orders = _Orders()
        self._writing = RLock()
        self.heard: set[Resource] = set()
        """Of what a watch has told something."""
        self.closed: frozenset[Resource] = frozenset()
        """What this account may neither list nor watch."""

    def put(self, resource: Resource, body: Mapping[str, Any], *, lives: bool = False) -> set[NamespacedName]:
        """Takes in an object as it is now; the EnergyPlans that it concerns, now or before.

        What is older than what is known (a list that overtakes a watch, a watch that our own write or deletion
        overtakes) is left; so is one that was deleted, unless it was read just now and so `lives` after all. What takes
        long, to read it, keeps nobody else from writing.
        """
        key, told = _key(body), _told(body)
        if self._is_old(resource, key, told, lives=lives):
            return set()
        try:
            new = self._read(resource, body)
        except (ValidationError, KeyError, TypeError, AttributeError, ValueError) as error:
            log.warning("%s %s can't be read and is left out: %s", resource.plural, "/".join(key), error)
            new = None
        with self._writing:
            if self._is_old(resource, key, told, lives=lives):  # by now
                return set()
            self._known[resource][key] = told
            old = self._objects[resource].get(key)
            if resource in _OF_NODES and old is not None and new is not None and _told_by(old) == _told_by(new):
                return set()
            return self._store(resource, key, self._sharing_orders(new))

    def drop(self, resource: Resource, body: Mapping[str, Any]) -> set[NamespacedName]:
        """Takes out an object for good, in its last state or by its name alone; the EnergyPlans that it concerned.

        Another of that name may be there already: then only the old one's end is told, and nothing changes.
        """
        with self._writing:
            key, told = _key(body), _told(body)
            known = self._known[resource].get(key, told)
            if told.uid and told.uid != known.uid and told.version < known.version:
                return set()
            uid, version = told.uid or known.uid, max(told.version, known.version)
            self._known[resource][key] = _Known(uid, version, gone_s=self._clock())
            return self._store(resource, key, None)

    def keys(self, resource: Resource) -> set[NamespacedName]:
        """Names of the objects of a resource."""
        return set(self._objects[resource])

    def uids(self, resource: Resource) -> dict[NamespacedName, str]:
        """The objects of a resource, by their UID: what `replace` asks for."""
        return {key: known.uid for key, known in list(self._known[resource].items()) if known.gone_s is None}

    def replace(
        self, resource: Resource, bodies: Iterable[Mapping[str, Any]], known_before: Mapping[NamespacedName, str]
    ) -> set[NamespacedName]:
        """Takes in a whole list, each object as it comes; of what was known before it was asked for, what it lacks is
        gone."""
        listed: set[NamespacedName] = set()
        concerned: set[NamespacedName] = set()
        for body in bodies:
            listed.add(_key(body))
            concerned |= self.put(resource, body)
        with self._writing:
            for key in known_before.keys() - listed:
                known = self._known[resource].get(key)
                if known is not None and known.uid == known_before[key]:  # else another has come since
                    concerned |= self.drop(resource, {"metadata": {"namespace": key[0], "name": key[1]}})
            before_s = self._clock() - _GRAVE_S
            for key, known in list(self._known[resource].items()):
                if known.gone_s is not None and known.gone_s < before_s:
                    del self._known[resource][key]
        return concerned

    def is_annotated(self, namespace: str, job: JobName) -> bool:
        """Whether that one, or the job that has made it, is there and asks for a plan."""
        found = self.topmost(namespace, job)
        return found is not None and found.annotation is not None

    def topmost(self, namespace: str, job: JobName) -> TrainingJob | None:
        """The job that has made that one, or itself where none has; None where one of these isn't there."""
        found = self.job(_BY_NAME[job.kind.kind], (namespace, job.name))
        if found is None or found.uid != job.uid:
            return None
        return found if found.made_by is None else self.topmost(namespace, found.made_by)

    def job(self, resource: Resource, key: NamespacedName) -> TrainingJob | None:
        found: TrainingJob | None = self._objects[resource].get(key)
        return found

    def nodes(self, namespace: str, job_uid: str) -> tuple[NodeJob, ...]:
        """What each node says of a job; a report that is long out of date speaks of processes that are gone."""
        return tuple(
            NodeJob(node, job, report.status.gpus, age_s)
            for (_, node), report in sorted(self._nodes.items())
            if (age_s := self._clock() - report.arrived_s) <= _longest_silence_s(report.status)
            for job in report.status.jobs
            if (job.namespace, job.job_uid) == (namespace, job_uid)
        )

    @property
    def unreadable(self) -> str:
        """Why not all that plans rest upon can be read, as a sentence; empty where it can."""
        closed = sorted(one.plural for one in self.closed - _JOB_KINDS.keys())
        if not closed:
            return ""
        return (
            f"The operator may not list and watch {', '.join(closed)} of {GROUP}, so it decides nothing: plans in "
            "force go on, none is made. Give its account the ClusterRole of its release (helm upgrade)."
        )

    def policy(self) -> EnergyPolicySpec:
        """The cluster's; an empty one where there is none."""
        found: EnergyPolicySpec | None = self._objects[ENERGY_POLICIES].get(("", POLICY_NAME))
        return found or EnergyPolicySpec()

    def report(self, node: str) -> NodeReportStatus | None:
        """The NodeReport of a node, of whatever jobs."""
        found: _Report | None = self._objects[NODE_REPORTS].get(("", node))
        return None if found is None else found.status

    def plans(self, key: NamespacedName) -> tuple[StoredPlan, ...]:
        """The JobPlans of an EnergyPlan."""
        owned: dict[NamespacedName, _Owned] = self._objects[JOB_PLANS]
        return tuple(one.plan for (namespace, _), one in sorted(owned.items()) if (namespace, one.energy_plan) == key)

    def orphans(self, key: NamespacedName, uid: str | None) -> tuple[StoredPlan, ...]:
        """Those of them that aren't owned by the EnergyPlan of this UID; all where there is none.

        Whoever deletes one with `--cascade=orphan` has its UID taken out of its JobPlans: what names no owner belonged
        to one that is gone.
        """
        owned: dict[NamespacedName, _Owned] = self._objects[JOB_PLANS]
        return tuple(
            one.plan
            for (namespace, _), one in sorted(owned.items())
            if (namespace, one.energy_plan) == key and uid not in one.owners
        )

    def profiles(self, namespace: str) -> tuple[StoredProfile, ...]:
        """The EnergyProfiles of a namespace."""
        return tuple(one for key, one in sorted(self._objects[ENERGY_PROFILES].items()) if key[0] == namespace)

    def _is_old(self, resource: Resource, key: NamespacedName, told: _Known, *, lives: bool) -> bool:
        known = self._known[resource].get(key)
        if known is None:
            return False
        return told.version < known.version or (known.gone_s is not None and known.uid == told.uid and not lives)

    def _store(self, resource: Resource, key: NamespacedName, new: Any) -> set[NamespacedName]:
        """Keeps what was read, or nothing; whom that concerns, now or before."""
        before = self._concerned(resource, key)
        if new is None:
            self._objects[resource].pop(key, None)
        else:
            self._objects[resource][key] = new
        if resource in _OF_NODES:
            old, whole = self._nodes.get(key), self._whole(key)
            if whole is None:
                self._nodes.pop(key, None)
            elif old is None:
                self._nodes[key] = whole
            else:
                self._nodes[key] = replace(whole, status=_sharing_blocks(whole.status, old.status))
                if resource == NODE_STATES and _standing(whole.status) == _standing(old.status):
                    return set()  # it lives, and nobody waits for that: EnergyPlans are looked at each minute
        return before | self._concerned(resource, key)

    def _whole(self, key: NamespacedName) -> _Report | None:
        """All of a node. Older agents tell of ranks in the NodeReport: of that and a NodeState the last one holds."""
        report: _Report | None = self._objects[NODE_REPORTS].get(key)
        state: _Report | None = self._objects[NODE_STATES].get(key)
        if state is None or (report is not None and report.status.jobs and report.arrived_s > state.arrived_s):
            return report
        facts = NodeReportStatus() if report is None else report.status
        measured = self._objects[NODE_MEASUREMENTS].get(key, Measurements())
        return _Report(joined(facts, state.status.jobs, measured), state.arrived_s)

    def _read(self, resource: Resource, body: Mapping[str, Any]) -> Any:
        metadata = body["metadata"]
        version = metadata.get("resourceVersion")
        if resource == ENERGY_PLANS:
            return body["spec"]["job"]["name"]
        if resource == ENERGY_POLICIES:
            return read_policy(body)
        job_uid = (metadata.get("labels") or {}).get(JOB_UID_LABEL, "")
        if (job_kind := _JOB_KINDS.get(resource)) is not None:
            return job_kind.read(body)
        if resource in (NODE_REPORTS, NODE_STATES):
            status = NodeReportStatus.from_api(body.get("status") or {})
            for rank in (rank for job in status.jobs for rank in job.ranks):
                check_labels(rank)
            return _Report(status, self._clock())
        if resource == NODE_MEASUREMENTS:
            measured = Measurements.unpacked(NodeMeasurementStatus.from_api(body.get("status") or {}).packed)
            for one in measured.ranks:
                check_labels(one)
            return measured
        if resource == JOB_PLANS:
            spec = JobPlanSpec.from_api(body["spec"]).unpacked()
            if content_hash(body["spec"]) != spec.hash:
                raise ValueError("its hash isn't that of its content, so no agent plays it; it is made anew")
            if spec.size > MOST_PLAN_BYTES:
                raise ValueError(f"it has more than {MOST_PLAN_BYTES} bytes; it is made anew")
            if job_uid != spec.job_uid:
                raise ValueError("its label isn't the UID of its job, so no agent reads it; it is made anew")
            inputs = (metadata.get("annotations") or {}).get(INPUTS_ANNOTATION, "")
            owners = frozenset(one["uid"] for one in metadata.get("ownerReferences") or ())
            return _Owned(StoredPlan(metadata["name"], spec, inputs, version), spec.energy_plan, owners)
        return StoredProfile(metadata["name"], EnergyProfileSpec.from_api(body["spec"]), job_uid, version)

    def _sharing_orders(self, new: Any) -> Any:
        """The same, where orders that are alike are one: replicas have the same, and so has a rank's next report."""

        def shared(rank: Rank) -> Rank:
            return rank.model_copy(update={"order": self._orders.shared(rank.order)})

        if isinstance(new, _Report):
            return replace(new, status=_of_ranks(new.status, shared))
        if isinstance(new, Measurements):
            return new.model_copy(update={"ranks": tuple(map(shared, new.ranks))})
        return new

    def _concerned(self, resource: Resource, key: NamespacedName) -> set[NamespacedName]:
        if resource == ENERGY_PLANS:
            return {key}
        if resource == ENERGY_POLICIES:
            return self.keys(ENERGY_PLANS)
        if resource in _JOB_KINDS:
            return self._waiting_for(key)
        if resource == JOB_PLANS:
            owned: _Owned | None = self._objects[JOB_PLANS].get(key)
            return {(key[0], owned.energy_plan)} if owned else set()
        if resource in _OF_NODES and (node := self._nodes.get(key)) is not None:
            return set().union(*(self._waiting_for((job.namespace, job.job)) for job in node.status.jobs))
        return set()

    def _waiting_for(self, job: NamespacedName) -> set[NamespacedName]:
        return {key for key, name in list(self._objects[ENERGY_PLANS].items()) if (key[0], name) == job}


def _told_by(part: _Report | Measurements) -> NodeReportStatus | Measurements:
    return part.status if isinstance(part, _Report) else part


def _standing(status: NodeReportStatus) -> NodeReportStatus:
    """The same, but for the iterations that ranks are at."""
    return _of_ranks(status, lambda rank: rank.model_copy(update={"iteration": 0, "iteration_time_s": 0.0}))


def _sharing_blocks(new: NodeReportStatus, old: NodeReportStatus) -> NodeReportStatus:
    """The new one with the blocks of the old one where they are the same: a rank adds blocks, and changes none."""
    known = {(rank.pod_uid, rank.rank): rank.blocks for job in old.jobs for rank in job.ranks}

    def shared(rank: RankReport) -> RankReport:
        blocks = known.get((rank.pod_uid, rank.rank), ())
        same = len(blocks) == len(rank.blocks) and blocks[:1] == rank.blocks[:1] and blocks[-1:] == rank.blocks[-1:]
        return rank.model_copy(update={"blocks": blocks}) if same else rank

    return _of_ranks(new, shared)


def _of_ranks(status: NodeReportStatus, change: Callable[[RankReport], RankReport]) -> NodeReportStatus:
    jobs = (job.model_copy(update={"ranks": tuple(map(change, job.ranks))}) for job in status.jobs)
    return status.model_copy(update={"jobs": tuple(jobs)})


def _key(body: Mapping[str, Any]) -> NamespacedName:
    return body["metadata"].get("namespace") or "", body["metadata"]["name"]


def _told(body: Mapping[str, Any]) -> _Known:
    metadata = body["metadata"]
    return _Known(metadata.get("uid") or "", int(metadata.get("resourceVersion") or 0))


def _longest_silence_s(status: NodeReportStatus) -> float:
    """Three to six minutes, by the size of the job, or five iterations, which may pass without news."""
    periods_s = (rank.iteration_time_s for job in status.jobs for rank in job.ranks)
    ranks = max((job.world_size for job in status.jobs), default=0)
    return max(min(_SILENT_S[1], max(_SILENT_S[0], ranks * _SILENT_S_A_RANK)), 5 * max(periods_s, default=0.0))
