"""The agent's ties to Kubernetes: JobPlans in, its NodeReport and its Lease out.

Plans are level-triggered: every list and every event of a watch leads to the whole set of plans being handed on, and a
watch is followed by a list at the latest after a minute. Each is news, also where nothing has changed: what was
withdrawn would have been missing in it. Without news, be it that the API server can't be reached or that a connection
is a black hole, the agent goes on with the plans that it has until their time to live is over. A Lease that could be
renewed is no news: the watch may hang all the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from joulepath_agent.cluster.failures import repeat
from joulepath_agent.cluster.heartbeat import Heartbeat
from joulepath_agent.cluster.objects import ApiServer
from joulepath_agent.cluster.plans import Plans
from joulepath_agent.cluster.reporting import Pace, fitting
from joulepath_clocks.peers.budget import BUDGET
from joulepath_clocks.peers.peer import JobKey
from joulepath_clocks.ranks.lifetime import DEFAULT_TIME_TO_LIVE_S
from joulepath_clocks.ranks.reason import Reason
from joulepath_crds import JobPlanSpec, NodeReportStatus
from joulepath_crds.contract import GROUP, VERSION
from joulepath_rules import JobName

__all__ = ["NodeApi"]

_SOON_S: Final = (1.0, 2.0)
"""For what a container waits for, to connect and to be answered."""
_LONGEST_WATCH_S: Final = 60.0
_LATE_S: Final = 15.0
"""How long after its end a watch may still be open: then the connection is taken for dead."""
_LOOKS: Final = 4
"""Lists in a plan's time to live: one that fails, on a connection that is found dead, leaves time for the next."""
_TICK_S: Final = 0.3


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
        """`group` is that of JobPlan and NodeReport."""
        self._watch_s = max(1, int(min(_LONGEST_WATCH_S, plan_time_to_live_s / _LOOKS)))
        self._api, self._node, self._namespace = api, node, namespace
        self._ours = "apis", group, VERSION
        self._stop = threading.Event()
        self._pace = Pace()
        self._plans = Plans()

    def run(
        self,
        set_plans: Callable[[Mapping[JobKey, JobPlanSpec | Reason]], None],
        report: Callable[[], NodeReportStatus | None],
    ) -> None:
        """Starts the two threads: plans in, reports and the lease out; neither while there is nothing to report."""
        for name, work in (("plans", lambda: self._watch(set_plans)), ("reports", lambda: self._report(report))):
            threading.Thread(target=repeat, args=(name, work, self._stop), name=name, daemon=True).start()

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

    def _watch(self, set_plans: Callable[[Mapping[JobKey, JobPlanSpec | Reason]], None]) -> None:
        try:
            listed = self._api.read(*self._ours, "jobplans")
        except FileNotFoundError:
            set_plans({})  # the kind itself is gone, and with it every plan
            raise
        self._plans.replace(listed["items"])
        set_plans(self._plans.by_job())
        version, late_s = listed["metadata"]["resourceVersion"], min(_LATE_S, self._watch_s)
        for event in self._api.watch(version, self._watch_s, late_s, *self._ours, "jobplans"):
            if self._stop.is_set() or event["type"] == "ERROR":
                return
            item = event["object"]
            if event["type"] == "DELETED":
                self._plans.remove(item)
            else:
                self._plans.put(item)
            set_plans(self._plans.by_job())

    # reports

    def _report(self, report: Callable[[], NodeReportStatus | None]) -> None:
        heartbeat = Heartbeat(self._api, self._node, self._namespace)
        while not self._stop.wait(_TICK_S):
            now = time.monotonic()
            if (status := report()) is None:
                continue
            if self._pace.due(status, now):
                self._write(fitting(status, BUDGET.report_bytes))
                self._pace.wrote(status, now)
            heartbeat.beat(now)

    def _write(self, status: NodeReportStatus) -> None:
        body, reports = {"status": status.to_api()}, (*self._ours, "nodereports")
        try:
            self._api.patch(body, *reports, self._node, "status")
        except FileNotFoundError:
            node = self._api.read("api", "v1", "nodes", self._node)
            owner = {"apiVersion": "v1", "kind": "Node", "name": self._node, "uid": node["metadata"]["uid"]}
            fresh = {
                "apiVersion": "/".join(self._ours[1:]),
                "kind": "NodeReport",
                "metadata": {"name": self._node, "ownerReferences": [owner]},
            }
            self._api.create(fresh, *reports)
            self._api.patch(body, *reports, self._node, "status")
