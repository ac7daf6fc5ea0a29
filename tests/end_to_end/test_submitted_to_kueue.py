"""A job in a queue of Kueue, which is real: it waits for quota, trains, makes room for another one and trains again."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from joulepath_crds import EnergyPlanStatus, Phase
from real_cluster import Cluster, kueue, until
from tests.end_to_end import jobs
from tests.end_to_end.product import JOBS, Product
from tests.end_to_end.waiting import BACK_S, in_force, wait_returned, while_locked
from tests.end_to_end.watching import Recorder

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

QUEUE: Final = "team"
QUOTA: Final = {"cpu": "8", "memory": "16Gi", "nvidia.com/gpu": "2"}
FAST_AND_SLOW: Final = 2
"""The first of two stages of the GPUs' model of which one waits for the other."""


def of_kueue(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": kind, "metadata": {"name": name}, **fields}


def queues() -> tuple[dict[str, Any], ...]:
    """One queue with room for one job of two GPUs; what is urgent takes the place of what isn't."""
    resources = [{"name": name, "nominalQuota": amount} for name, amount in QUOTA.items()]
    group = {"coveredResources": [*QUOTA], "flavors": [{"name": "virtual", "resources": resources}]}
    spec = {
        "namespaceSelector": {},
        "resourceGroups": [group],
        "preemption": {"withinClusterQueue": "LowerPriority"},
    }
    return (
        of_kueue("ResourceFlavor", "virtual"),
        of_kueue("WorkloadPriorityClass", "urgent", value=1000),
        of_kueue("ClusterQueue", "virtual", spec=spec),
        of_kueue("LocalQueue", QUEUE, spec={"clusterQueue": "virtual"}),
    )


def submitted(job: dict[str, Any], **labels: str) -> dict[str, Any]:
    """The job, in the queue."""
    job["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": QUEUE, **labels}
    return job


@pytest.fixture(scope="module", autouse=True)
def served(release: Product) -> Iterator[None]:
    """Kueue and its queue."""
    cluster = release.cluster
    with kueue(cluster, JOBS):
        until("Kueue's webhooks", 60, functools.partial(jobs.apply, cluster, *queues()))
        yield
        for name in ("holds", "queued", "urgent"):
            cluster.kubectl("delete", "pytorchjob,energyplan", name, "--namespace", JOBS, "--ignore-not-found")


def is_queued(status: EnergyPlanStatus) -> bool:
    return (status.phase, status.progress) == (Phase.PENDING, "Queued")


def told(record: Recorder) -> list[EnergyPlanStatus]:
    """All that was ever said of the job."""
    bodies = [one.body.get("status") for one in record.versions("energyplans", "queued")]
    return [EnergyPlanStatus.from_api(body) for body in bodies if body]


def suspended(cluster: Cluster, job: str) -> bool:
    path = "jsonpath={.spec.runPolicy.suspend}"
    return cluster.kubectl("get", "pytorchjob", job, "--namespace", JOBS, "--output", path) == "true"


def pods_of(cluster: Cluster, job: str) -> str:
    selector = f"training.kubeflow.org/job-name={job}"
    return cluster.kubectl("get", "pods", "--namespace", JOBS, "--selector", selector, "--output", "name")


def test_a_job_that_waits_for_quota_is_said_to_be_queued_and_has_no_pods(release: Product, record: Recorder) -> None:
    cluster = release.cluster
    jobs.apply(cluster, submitted(jobs.waiting_job("holds", annotated=False, roles=("Master", "Worker"))))
    jobs.phase(cluster, "holds", "Running")
    job = jobs.training_job("queued", first_kernel=FAST_AND_SLOW, ranks_per_pod=1)
    jobs.apply(cluster, jobs.script(), jobs.energy_plan("queued"), submitted(job))
    assert suspended(cluster, "queued")
    status = record.wait("queued", "the wait", 60, is_queued)
    assert f"until Kueue admits it from its queue {QUEUE}" in status.message
    command = status.message.rpartition("What it waits for: kubectl ")[2]
    until(
        "Kueue's word", 60, lambda: "insufficient unused quota for nvidia.com/gpu" in cluster.kubectl(*command.split())
    )
    reasons = {one.reason for status in told(record) for one in status.conditions if one.type == "Injected"}
    assert reasons - {"NoJob"} == {"Queued"}
    assert pods_of(cluster, "queued") == ""


def test_once_admitted_it_is_injected_and_its_plan_comes_into_force(release: Product, record: Recorder) -> None:
    jobs.stop(release.cluster, "holds")
    until("the trainer", BACK_S, lambda: record.outcomes("queued") == {"pytorch": "Injected"})
    in_force(release, record, "queued", 2)


def test_one_that_makes_room_leaves_no_clock_locked_and_is_said_to_be_queued(
    release: Product, record: Recorder
) -> None:
    cluster = release.cluster
    gpus = while_locked(release, record, "queued", "node0")
    job = jobs.waiting_job("urgent", annotated=False, roles=("Master", "Worker"))
    preempted_ns = time.monotonic_ns()
    jobs.apply(cluster, submitted(job, **{"kueue.x-k8s.io/priority-class": "urgent"}))
    status = record.wait("queued", "the wait", BACK_S, is_queued)
    since_ns = wait_returned(release, "node0", gpus, preempted_ns)
    assert {one.type: one.status for one in status.conditions}["Active"] != "True"
    until("no plan", 30, lambda: record.plan("queued") is None)
    jobs.phase(cluster, "urgent", "Running")
    until("the end of its pods", BACK_S, lambda: pods_of(cluster, "queued") == "")
    assert gpus <= release.gpus("node0").at_default(since_ns)


def test_admitted_again_it_is_injected_again_and_in_force_again_and_nobody_was_told_to_start_it_anew(
    release: Product, record: Recorder
) -> None:
    before = {rank.pod_uid for rank in record.ranks("queued").values()}
    jobs.stop(release.cluster, "urgent")
    in_force(release, record, "queued", 2)
    assert record.outcomes("queued") == {"pytorch": "Injected"}
    assert not before & {rank.pod_uid for rank in record.ranks("queued").values()}
    while_locked(release, record, "queued", "node0")
    assert not [status.message for status in told(record) if "create them again" in (status.message or "")]
