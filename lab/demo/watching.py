"""What the demo sees of a run: the API objects and, where a Prometheus scrapes, the agents' metrics.

The objects are read directly from the API server: on two cores a kubectl every two seconds would be felt by the job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kubernetes import client, config
from urllib3.exceptions import HTTPError

from demo.scraping import query
from joulepath_crds import (
    GROUP,
    VERSION,
    EnergyPlanStatus,
    EnergyProfileSpec,
    JobPlanSpec,
    Measurements,
    NodeReportStatus,
    Purpose,
    RankReport,
    joined,
)

__all__ = ["CLOCK_METRIC", "POWER_METRIC", "Evidence", "RankView", "Snapshot", "Watcher"]

CLOCK_METRIC: Final = "joulepath_gpu_sm_clock_hertz"
POWER_METRIC: Final = "joulepath_gpu_power_watts"


@dataclass(frozen=True, slots=True)
class RankView:
    """A rank as the live view shows it."""

    node: str
    report: RankReport
    clock_mhz: float | None = None
    power_w: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A moment of the run."""

    status: EnergyPlanStatus
    job: str
    """Created, Running, Restarting, Succeeded or Failed; empty before the training operator has seen it."""
    job_message: str
    ranks: tuple[RankView, ...]


@dataclass(slots=True)
class Evidence:
    """The last of each that was seen; agents forget a job soon after its end."""

    ranks: dict[int, RankReport] = field(default_factory=dict)
    plan: JobPlanSpec | None = None
    profile: EnergyProfileSpec | None = None


class Watcher:
    """Reads the objects of one EnergyPlan and keeps the evidence for the report."""

    def __init__(self, kubeconfig: Path | None, namespace: str, name: str, prometheus: str | None) -> None:
        self._api = client.CustomObjectsApi(
            config.new_client_from_config(config_file=str(kubeconfig) if kubeconfig else None)
        )
        self._namespace, self._name, self._prometheus = namespace, name, prometheus
        self.evidence = Evidence()

    def look(self) -> Snapshot:
        """What is so now.

        Raises:
            OSError: The API server or Prometheus can't be reached for the moment.
        """
        plan = self._get("energyplans", self._name)
        status = EnergyPlanStatus.from_api(plan.get("status") or {})
        job = self._get("pytorchjobs", plan["spec"]["job"]["name"], group="kubeflow.org", version="v1")
        conditions = [one for one in (job.get("status") or {}).get("conditions", ()) if one["status"] == "True"]
        last = conditions[-1] if conditions else {}
        ranks = self._ranks(job["metadata"]["uid"])
        self._keep(status, ranks)
        return Snapshot(status, last.get("type", ""), last.get("message", ""), ranks)

    def _keep(self, status: EnergyPlanStatus, ranks: tuple[RankView, ...]) -> None:
        for rank in ranks:
            known = self.evidence.ranks.get(rank.report.rank)
            if known is None or rank.report.plan_timeline or not known.plan_timeline:
                self.evidence.ranks[rank.report.rank] = rank.report
        if status.plan is None:
            return
        if self.evidence.profile is None and status.profile:
            self.evidence.profile = EnergyProfileSpec.from_api(self._get("energyprofiles", status.profile)["spec"])
        if self.evidence.plan is None or self.evidence.plan.hash != status.plan.hash:
            for item in self._list("jobplans"):
                spec = JobPlanSpec.from_api(item["spec"])
                if spec.energy_plan == self._name and spec.purpose is Purpose.ENFORCE:
                    self.evidence.plan = spec

    def _ranks(self, job_uid: str) -> tuple[RankView, ...]:
        clocks, watts = self._by_gpu(CLOCK_METRIC), self._by_gpu(POWER_METRIC)
        found = []
        states, measurements = (self._statuses(plural) for plural in ("nodestates", "nodemeasurements"))
        for node, state in states.items():
            jobs = NodeReportStatus.from_api(state).jobs
            measured = Measurements.unpacked(measurements.get(node, {}).get("packed", ""))
            for job in joined(NodeReportStatus(), jobs, measured).jobs:
                for rank in job.ranks if job.job_uid == job_uid else ():
                    clock = clocks.get(rank.gpu_uuid)
                    mhz = None if clock is None else clock / 1e6
                    found.append(RankView(node, rank, mhz, watts.get(rank.gpu_uuid)))
        return tuple(sorted(found, key=lambda view: view.report.rank))

    def _statuses(self, plural: str) -> Mapping[str, Any]:
        """Of all nodes."""
        return {one["metadata"]["name"]: one.get("status") or {} for one in self._list(plural, namespaced=False)}

    def _by_gpu(self, metric: str) -> Mapping[str, float]:
        if self._prometheus is None:
            return {}
        return {labels.get("UUID", ""): value for labels, value in query(self._prometheus, metric)}

    def _get(self, plural: str, name: str, *, group: str = GROUP, version: str = VERSION) -> dict[str, Any]:
        found: dict[str, Any] = _read(
            f"{plural}/{name}",
            lambda: self._api.get_namespaced_custom_object(group, version, self._namespace, plural, name),
        )
        return found

    def _list(self, plural: str, *, namespaced: bool = True) -> list[dict[str, Any]]:
        def listing() -> Any:
            if namespaced:
                return self._api.list_namespaced_custom_object(GROUP, VERSION, self._namespace, plural)
            return self._api.list_cluster_custom_object(GROUP, VERSION, plural)

        items: list[dict[str, Any]] = _read(plural, listing)["items"]
        return items


def _read(what: str, request: Callable[[], Any]) -> Any:
    try:
        return request()
    except client.ApiException as error:
        raise OSError(f"{what}: {error.status} {error.reason}") from error
    except HTTPError as error:
        raise OSError(f"{what}: {error}") from error
