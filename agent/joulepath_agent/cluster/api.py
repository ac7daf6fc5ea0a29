"""The agent's ties to Kubernetes: JobPlans and the EnergyPolicy in, what it knows and its Lease out.

JobPlans are those of the jobs that have ranks here, by label, and of each job one is read: a plan may have hundreds of
kilobytes, and a cluster a thousand nodes. Lists and watches are of metadata alone.

Plans are level-triggered: every list and every event of a watch leads to the whole set of plans being handed on, and a
watch is followed by a list after four minutes at most. Each is news, also where nothing has changed: what was withdrawn
would have been missing in it. Without news, be it that the API server can't be reached or that a connection is a black
hole, the agent goes on with the plans that it has until their time to live is over. A Lease that could be renewed is no
news: the watch may hang all the same. Nor is a bookmark: it shows that a watch which tells nothing isn't dead.

What it knows goes in three parts, each at its own pace (`reporting`): NodeReport, NodeState and NodeMeasurement, each
of the node's name, which is what the chart's policy lets it write.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any, Final, Protocol

from joulepath_agent.cluster.failures import TooLargeError, repeat
from joulepath_agent.cluster.heartbeat import Heartbeat
from joulepath_agent.cluster.objects import ApiServer, Watch
from joulepath_agent.cluster.plans import Heard, Plans
from joulepath_agent.cluster.policy import PolicyWatch
from joulepath_agent.cluster.reporting import Looks, Pace, fitting, of_facts, of_measurements, of_state
from joulepath_clocks.peers.budget import BUDGET
from joulepath_clocks.peers.peer import JobKey
from joulepath_clocks.ranks.lifetime import DEFAULT_TIME_TO_LIVE_S
from joulepath_clocks.ranks.reason import Obstacle, Reason
from joulepath_crds import (
    JOB_UID_LABEL,
    MOST_PLAN_BYTES,
    EnergyPolicySpec,
    JobPlanSpec,
    NodeMeasurementStatus,
    NodeReportStatus,
    facts_of,
    measured_of,
    state_of,
)
from joulepath_crds.contract import GROUP, VERSION, Contract
from joulepath_rules import JobName

__all__ = ["NodeApi", "Tied"]

_SOON_S: Final = (1.0, 2.0)
"""For what a container waits for, to connect and to be answered."""
_LONGEST_WATCH_S: Final = 240.0
_LATE_S: Final = 15.0
"""How long after its end a watch may still be open: then the connection is taken for dead."""
_LOOKS: Final = 4
"""Lists in a plan's time to live: one that fails, on a connection that is found dead, leaves time for the next."""
_TICK_S: Final = 0.3
_LABEL: Final = re.compile(r"[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?")
"""Who makes a pod says who owns it: what is no UID must not spoil the selector of the others."""


class Tied(Protocol):
    """What is tied: an agent."""

    @property
    def waits(self) -> bool:
        """Whether another one tells of this node."""

    @property
    def jobs(self) -> frozenset[JobKey]:
        """Those that have ranks here."""

    def set_plans(self, plans: Mapping[JobKey, JobPlanSpec | Reason], jobs: Collection[JobKey]) -> None:
        """Takes the plans of these jobs, all that there are."""

    def forget_plans(self) -> None:
        """Nobody asks for plans any more: ranks that come are told none until there is news."""

    def set_policy(self, policy: EnergyPolicySpec) -> None:
        """Takes the policy as it is now, an empty one where there is none."""

    def report(self) -> NodeReportStatus:
        """All that it knows."""


class NodeApi:
    """One node's view of the API server."""

    def __init__(
        self,
        api: ApiServer,
        node: str,
        namespace: str,
        group: str = GROUP,
        plan_time_to_live_s: float = DEFAULT_TIME_TO_LIVE_S,
    ) -> None:
        """`group` is that of our kinds."""
        self._watch_s = max(1, int(min(_LONGEST_WATCH_S, plan_time_to_live_s / _LOOKS)))
        self._api, self._node, self._namespace = api, node, namespace
        self._ours = "apis", group, VERSION
        self._stop = threading.Event()
        self._parts = tuple((kind, Pace(looks), part) for kind, looks, part in _PARTS)
        self._plans = Plans()
        self._policy = PolicyWatch(api, self._ours, self._watch_s, _LATE_S, self._stop)
        self._watched: tuple[frozenset[JobKey], Watch] | None = None

    def run(self, agent: Tied) -> None:
        """Starts its threads: plans and policy in, reports and the lease out; these while nobody else tells of this
        node."""
        for name, work in (
            ("plans", self._watch),
            ("turns", self._turn),
            ("policy", lambda agent: self._policy.hear(agent.set_policy)),
            ("reports", self._report),
            ("lease", self._live),
        ):
            task = partial(work, agent)
            threading.Thread(target=repeat, args=(name, task, self._stop), name=name, daemon=True).start()

    def stop(self) -> None:
        """Ends the threads, in the background."""
        self._stop.set()

    def read_pod(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """A pod as the API gives it, None where there is none.

        Raises:
            OSError: The API server doesn't answer.
        """
        try:
            return self._api.read("api", "v1", "namespaces", namespace, "pods", name)
        except FileNotFoundError:
            return None

    def read_job(self, namespace: str, job: JobName) -> Mapping[str, Any] | None:
        """A job's metadata, None where it isn't there.

        Raises:
            OSError: The API server doesn't answer.
        """
        kind = job.kind
        path = ("apis", kind.group, kind.version, "namespaces", namespace, kind.plural, job.name)
        try:
            metadata: Mapping[str, Any] = self._api.read_metadata(*path, timeout_s=_SOON_S)["metadata"]
        except FileNotFoundError:
            return None
        return metadata if job.uid in ("", metadata["uid"]) else None

    def review(self, kind: str, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """The status of a TokenReview or SubjectAccessReview; see `joulepath_crds.serving.guard`.

        Raises:
            OSError: The API server doesn't answer, or forbids it.
        """
        group = {"TokenReview": "authentication", "SubjectAccessReview": "authorization"}[kind] + ".k8s.io"
        body = {"apiVersion": f"{group}/v1", "kind": kind, "spec": spec}
        status: Mapping[str, Any] = self._api.create(body, "apis", group, "v1", f"{kind.lower()}s")["status"]
        return status

    # plans

    def _watch(self, agent: Tied) -> None:
        if not (wanted := _selectable(agent.jobs)):
            agent.forget_plans()
            self._stop.wait(_TICK_S)
            return
        labels = f"{JOB_UID_LABEL} in ({','.join(sorted(uid for _, uid in wanted))})"
        try:
            listed = self._api.list(*self._ours, "jobplans", whole=False, labelSelector=labels)
            self._plans.replace(listed["items"], wanted)
        except FileNotFoundError:
            agent.set_plans({}, wanted)  # the kind itself is gone, and with it every plan
            raise
        self._tell_plans(agent, wanted)
        version, late_s = listed["metadata"]["resourceVersion"], min(_LATE_S, self._watch_s)
        try:
            with self._api.watch(
                version, self._watch_s, late_s, *self._ours, "jobplans", labels=labels, bookmarks=True, whole=False
            ) as watch:
                self._watched = wanted, watch
                for _ in self._changes(watch, wanted):
                    self._tell_plans(agent, wanted)
        except OSError:
            if _selectable(agent.jobs) <= wanted:
                raise
        finally:
            self._watched = None

    def _changes(self, watch: Watch, wanted: frozenset[JobKey]) -> Iterator[None]:
        for event in watch:
            if self._stop.is_set() or event["type"] == "ERROR":
                return
            if event["type"] == "BOOKMARK":
                continue
            if event["type"] == "DELETED":
                self._plans.remove(event["object"])
            else:
                self._plans.put(event["object"], wanted)
            yield

    def _tell_plans(self, agent: Tied, wanted: frozenset[JobKey]) -> None:
        while (heard := self._plans.unread()) is not None:
            try:
                self._plans.take(heard, self._read_plan(heard))
            except OSError:
                if self._plans.is_superseded(heard):
                    agent.set_plans({}, {heard.job})  # what is in its place will be heard of later
                raise
        agent.set_plans(self._plans.by_job(), wanted)

    def _read_plan(self, heard: Heard) -> Mapping[str, Any] | Reason | None:
        """As a list of that one object, which agents have a right to; from the API server's memory, as all nodes of a
        job ask at once."""
        only = {"fieldSelector": f"metadata.name={heard.name}", "resourceVersion": heard.version}
        where, most = (*self._ours, "namespaces", heard.job[0], "jobplans"), 2 * MOST_PLAN_BYTES
        try:
            found = self._api.list(*where, whole=True, most_bytes=most, **only)["items"]
        except TooLargeError as error:
            return Reason(Obstacle.PLAN_UNREADABLE, str(error))
        return found[0] if found and found[0]["metadata"]["uid"] == heard.uid else None

    def _turn(self, agent: Tied) -> None:
        """Ends a watch that doesn't tell of all jobs."""
        while not self._stop.wait(_TICK_S):
            if (watched := self._watched) is not None and not _selectable(agent.jobs) <= watched[0]:
                watched[1].end()

    # reports and the lease

    def _report(self, agent: Tied) -> None:
        while not self._stop.wait(_TICK_S):
            if agent.waits:
                continue
            report, now = agent.report(), time.monotonic()
            for kind, pace, part in self._parts:
                if pace.due(report, now):
                    self._write(kind, part(fitting(report, BUDGET.report_bytes)))
                    pace.wrote(report, time.monotonic())

    def _live(self, agent: Tied) -> None:
        heartbeat = Heartbeat(self._api, self._node, self._namespace)
        while not self._stop.wait(_TICK_S):
            if not agent.waits:
                heartbeat.beat(time.monotonic())

    def _write(self, kind: str, status: Contract) -> None:
        body, objects = {"status": status.to_api()}, (*self._ours, f"{kind.lower()}s")
        try:
            self._api.patch(body, *objects, self._node, "status")
        except FileNotFoundError:
            node = self._api.read("api", "v1", "nodes", self._node)
            owner = {"apiVersion": "v1", "kind": "Node", "name": self._node, "uid": node["metadata"]["uid"]}
            fresh = {
                "apiVersion": "/".join(self._ours[1:]),
                "kind": kind,
                "metadata": {"name": self._node, "ownerReferences": [owner]},
            }
            self._api.create(fresh, *objects)
            self._api.patch(body, *objects, self._node, "status")


def _packed(report: NodeReportStatus) -> NodeMeasurementStatus:
    return NodeMeasurementStatus(packed=measured_of(report).packed())


_PARTS: Final[tuple[tuple[str, Callable[[NodeReportStatus], Looks], Callable[[NodeReportStatus], Contract]], ...]] = (
    ("NodeReport", of_facts, facts_of),
    ("NodeState", of_state, state_of),
    ("NodeMeasurement", of_measurements, _packed),
)
"""Kind, what of it is looked at, and what is written."""


def _selectable(jobs: frozenset[JobKey]) -> frozenset[JobKey]:
    return frozenset(job for job in jobs if _LABEL.fullmatch(job[1]))
