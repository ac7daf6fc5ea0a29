"""A simulated node: the agent's own ties to Kubernetes, over ranks that are simulated."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Final

from joulepath_agent.cluster.api import NodeApi
from joulepath_agent.cluster.objects import ApiServer
from joulepath_clocks.peers.peer import JobKey
from joulepath_clocks.ranks.reason import Reason
from joulepath_crds import (
    INJECTOR_READY,
    Coordinates,
    EnergyPolicySpec,
    GpuReport,
    InjectionReport,
    JobPlanSpec,
    JobReport,
    NodeReportStatus,
    SwitchingLag,
)
from simulated_nodes.job import GPUS_PER_NODE, Job
from simulated_nodes.ranks import LAG_S, Ranks
from simulated_nodes.truth import DEFAULT_MHZ, Truth

__all__ = ["Event", "Node"]

_LAG: Final = SwitchingLag(up_median_s=LAG_S, up_p95_s=LAG_S, down_median_s=LAG_S, down_p95_s=LAG_S, samples=100)

Event = Callable[[float, str, str, str], object]
"""Told when, on which node, what happened (`staged`, `applied`) to the plan of which hash."""


class Node:
    """One of a job's nodes, and what its agent is tied to. Its job begins with the first iteration that is played."""

    waits: Final = False
    """There is no other agent on it."""

    def __init__(self, name: str, job: Job | None, truth: Truth, event: Event) -> None:
        self.name, self._job, self._event = name, job, event
        self._lock = threading.Lock()
        self._key: JobKey | None = None
        self._ranks: tuple[Ranks, ...] = ()
        if job is not None:
            self._key = job.namespace, job.uid
            stages = defaultdict[int, list[tuple[int, Coordinates]]](list)
            for rank, place in job.ranks(name):
                stages[place.pipeline].append((rank, place))
            self._ranks = tuple(Ranks(job, name, stage, truth, members) for stage, members in stages.items())
        self._happened: dict[str, str | None] = {}
        self._report = NodeReportStatus(
            agent_version="simulated",
            gpus=tuple(
                GpuReport(
                    uuid=f"GPU-{name}-{number}",
                    model=truth.gpu_model,
                    default_clock_mhz=DEFAULT_MHZ,
                    settled_clock_mhz=DEFAULT_MHZ,
                    supported_clocks_mhz=truth.supported_mhz,
                    lag=_LAG,
                )
                for number in range(GPUS_PER_NODE)
            ),
            injector=INJECTOR_READY,
        )

    def run(self, api: ApiServer, namespace: str) -> NodeApi:
        """Starts the agent's threads."""
        cluster = NodeApi(api, self.name, namespace)
        cluster.run(self)
        return cluster

    @property
    def jobs(self) -> frozenset[JobKey]:
        """Its job, once that has begun."""
        return frozenset({self._key} if self._key and self._report.jobs else ())

    def report(self) -> NodeReportStatus:
        """All that its agent knows; the same object for as long as nothing changes."""
        return self._report

    def forget_plans(self) -> None:
        """Nothing: its job's plan is asked for as soon as that has begun, and ever after."""

    def set_policy(self, policy: EnergyPolicySpec) -> None:
        """Nothing: none is made here."""

    def begin(self, iteration: int) -> None:
        """An iteration of its job begins."""
        with self._lock:
            for ranks in self._ranks:
                ranks.begin(iteration)
            self._tell()

    def set_plans(self, plans: Mapping[JobKey, JobPlanSpec | Reason], jobs: Collection[JobKey]) -> None:
        """Takes the plan of its job, if that is among those that are told of."""
        if self._key not in jobs:
            return
        with self._lock:
            plan = plans.get(self._key) if self._key else None
            changed = [ranks.set_plan(plan) for ranks in self._ranks]
            if any(changed) and self._report.jobs:
                self._tell()

    def _tell(self) -> None:
        """Makes the report anew, and tells what is staged, and applied, on all ranks and wasn't before."""
        if (job := self._job) is None:
            return
        ranks = sorted((one for of in self._ranks for one in of.reports), key=lambda one: one.rank)
        told = JobReport(
            job_uid=job.uid, namespace=job.namespace, job=job.name, world_size=job.world_size, ranks=tuple(ranks)
        )
        injected = InjectionReport(
            pod_uid=ranks[0].pod_uid, namespace=job.namespace, pod=ranks[0].pod, container="pytorch", outcome="Injected"
        )
        self._report = self._report.model_copy(update={"jobs": (told,), "injection": (injected,)})
        for what in ("staged", "applied"):
            found = {getattr(ranks, what) for ranks in self._ranks}
            one = found.pop() if len(found) == 1 else None
            if one and one != self._happened.get(what):
                self._event(time.monotonic(), self.name, what, one)
            self._happened[what] = one
