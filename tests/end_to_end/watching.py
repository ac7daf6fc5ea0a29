"""What the cluster tells, all of it and in order: every version of the objects that Joulepath writes.

The versions of all kinds are numbers of one database, so they can be compared: what a NodeReport said before a JobPlan
was changed is known for certain.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch
from urllib3.exceptions import HTTPError

from joulepath_crds import (
    GROUP,
    VERSION,
    EnergyPlanStatus,
    InjectionReport,
    JobPlanSpec,
    Measurements,
    NodeReportStatus,
    Phase,
    Purpose,
    RankReport,
    joined,
)
from real_cluster import NotYetError, until

__all__ = ["Recorder", "Told", "recorder"]

_KINDS = ("energyplans", "jobplans", "nodereports", "nodestates", "nodemeasurements", "energyprofiles")
_WATCH_S = 30
_STALLED_S = 60
"""A connection that says nothing for so long has stalled: else a kind would be seen as it was, for ever."""


@dataclass(frozen=True, slots=True)
class Told:
    """A version of an object, or its deletion."""

    version: int
    kind: str
    name: str
    deleted: bool
    body: dict[str, Any]


@dataclass(slots=True)
class Recorder:
    """Reads and writes are of different threads; a list only grows."""

    kubeconfig: Path
    told: list[Told] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def versions(self, kind: str, name: str | None = None) -> list[Told]:
        """All versions of one object, or of all of a kind, in order."""
        return [one for one in tuple(self.told) if one.kind == kind and name in (None, one.name)]

    def living(self, kind: str) -> dict[str, Told]:
        """The objects of a kind as they are now."""
        last = {one.name: one for one in self.versions(kind)}
        return {name: one for name, one in last.items() if not one.deleted}

    def status(self, name: str) -> EnergyPlanStatus:
        """The status of an EnergyPlan now; a blank one if there is none."""
        plan = self.living("energyplans").get(name)
        return EnergyPlanStatus.from_api((plan.body.get("status") if plan else None) or {})

    def plan(self, energy_plan: str) -> JobPlanSpec | None:
        """The JobPlan of an EnergyPlan now."""
        specs = [JobPlanSpec.from_api(one.body["spec"]) for one in self.living("jobplans").values()]
        return next((spec for spec in specs if spec.energy_plan == energy_plan), None)

    def ranks(self, job: str, *, node: str | None = None, before: int | None = None) -> dict[int, RankReport]:
        """The ranks of a job as their nodes tell now, or as they told before a version."""
        states, measurements = (
            {
                one.name: {} if one.deleted else one.body.get("status") or {}
                for one in self.versions(kind, node)
                if before is None or one.version < before
            }
            for kind in ("nodestates", "nodemeasurements")
        )
        found: dict[int, RankReport] = {}
        for name, state in states.items():
            measured = Measurements.unpacked(measurements.get(name, {}).get("packed", ""))
            for told in joined(NodeReportStatus(), NodeReportStatus.from_api(state).jobs, measured).jobs:
                if told.job == job:
                    found |= {rank.rank: rank for rank in told.ranks}
        return found

    def wait(
        self, name: str, what: str, limit_s: float, holds: Callable[[EnergyPlanStatus], object]
    ) -> EnergyPlanStatus:
        """Until the status of an EnergyPlan is so; that status."""

        def look() -> None:
            status = self.status(name)
            if not holds(status):
                assert status.phase is not Phase.REFUSED, f"EnergyPlan {name} is refused: {status.message}"
                raise NotYetError(f"EnergyPlan {name} is {status.phase}: {status.message}")

        until(f"{what} of EnergyPlan {name}", limit_s, look, 0.2)
        return self.status(name)

    def outcomes(self, job: str) -> dict[str, str]:
        """What became of the containers of a PyTorchJob's first pod."""
        return {one.container: one.outcome for one in self._injections() if one.pod == f"{job}-master-0"}

    def injected(self, pod_uid: str) -> str:
        """What became of the one container of a pod; empty while that isn't told."""
        return next((one.outcome for one in self._injections() if one.pod_uid == pod_uid), "")

    def _injections(self) -> list[InjectionReport]:
        bodies = [one.body.get("status") or {} for one in self.living("nodereports").values()]
        return [told for body in bodies for told in NodeReportStatus.from_api(body).injection]

    def applied(self, job: str, ranks: int = 4, *, node: str | None = None, limit_s: float = 60) -> str:
        """Until the JobPlan of now, which is no sweep, is in force on so many ranks of a job; its hash."""
        found: list[str] = []

        def look() -> None:
            plan = self.plan(job)
            wanted = plan.hash if plan and plan.purpose is Purpose.ENFORCE else None
            seen = self.ranks(job, node=node)
            states = [
                (rank.rank, rank.state.value, rank.reason) for rank in seen.values() if rank.applied_hash != wanted
            ]
            if wanted is None or states or len(seen) != ranks:
                raise NotYetError(f"plan {wanted}, {len(seen)} ranks, not applied by {states}")
            found[:] = [wanted]

        until(f"the plan of {job} in force", limit_s, look, 0.2)
        return found[0]

    def run(self, kind: str) -> None:
        """Records a kind until the end."""
        api = client.CustomObjectsApi(config.new_client_from_config(config_file=str(self.kubeconfig)))
        known: dict[str, int] = {}
        while not self._stop.is_set():
            with contextlib.suppress(client.ApiException, HTTPError):
                listed = api.list_cluster_custom_object(GROUP, VERSION, kind, _request_timeout=_STALLED_S)
                present = {item["metadata"]["name"] for item in listed["items"]}
                for item in listed["items"]:
                    self._take(kind, item, known)
                version = int(listed["metadata"]["resourceVersion"])
                for name in set(known) - present:
                    self._take(kind, {"metadata": {"name": name, "resourceVersion": version}}, known, deleted=True)
                for event in watch.Watch().stream(
                    api.list_cluster_custom_object,
                    GROUP,
                    VERSION,
                    kind,
                    resource_version=str(version),
                    timeout_seconds=_WATCH_S,
                    _request_timeout=_STALLED_S,
                ):
                    if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                        self._take(kind, event["object"], known, deleted=event["type"] == "DELETED")
                    if self._stop.is_set():
                        break
            self._stop.wait(0.2)

    def _take(self, kind: str, body: dict[str, Any], known: dict[str, int], *, deleted: bool = False) -> None:
        name, version = body["metadata"]["name"], int(body["metadata"]["resourceVersion"])
        if version > known.get(name, 0):
            self.told.append(Told(version, kind, name, deleted, body))
            known[name] = version
        if deleted:
            known.pop(name, None)

    def end(self) -> None:
        """Stops recording, within seconds."""
        self._stop.set()


@contextlib.contextmanager
def recorder(kubeconfig: Path) -> Iterator[Recorder]:
    """Records while inside the `with`."""
    made = Recorder(kubeconfig)
    for kind in _KINDS:
        threading.Thread(target=made.run, args=(kind,), name=f"record {kind}", daemon=True).start()
    try:
        yield made
    finally:
        made.end()
