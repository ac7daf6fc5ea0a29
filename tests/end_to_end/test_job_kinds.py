"""Jobs of each other kind train on the cluster as a PyTorchJob does: a Job, a JobSet, a TrainJob, from the examples.

Side by side, since they share what is brought up for them and mostly wait. JobSet and the Trainer, and so their kinds,
come while the operator runs.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from joulepath_crds import JobReference, Phase
from joulepath_operator.jobs.kinds import kind_of
from real_cluster import Cluster, NotYetError, trainer, until
from tests.end_to_end import jobs
from tests.end_to_end.product import JOBS, Product
from tests.end_to_end.waiting import BACK_S, in_force, wait_returned, while_locked
from tests.end_to_end.watching import Recorder

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

EXAMPLES: Final = Path(__file__).parents[2] / "examples/03-job-kinds"
NAMES: Final = ("job", "jobset", "trainjob")
"""Of the examples, and so of the jobs here."""
RUNTIME: Final = "end-to-end"
FAST_AND_SLOW: Final = 2
"""The first of two stages of the GPUs' model of which one waits for the other."""


def example(name: str) -> list[dict[str, Any]]:
    """An example's objects, with pods as this cluster has them."""
    text = (EXAMPLES / f"{name}.yaml").read_text().replace("gpt3", name)
    made: list[dict[str, Any]] = [one for one in yaml.safe_load_all(text) if one["kind"] != "EnergyPlan"]
    for one in made:
        for pod in pods_in(one):
            fit(pod, name)
        if one["kind"] == "TrainJob":
            one["spec"]["runtimeRef"] = {"name": RUNTIME, "kind": "TrainingRuntime"}
            (container,) = trained(name)["containers"]
            fitted = {key: container[key] for key in ("image", "command", "args")}
            one["spec"]["trainer"] |= {**fitted, "numProcPerNode": 1, "resourcesPerNode": container["resources"]}
    return made


def runtime() -> dict[str, Any]:
    """What the Trainer makes TrainJobs from: as its own for torch, with pods as this cluster has them."""
    pod: dict[str, Any] = {"containers": [{"name": "node"}]}
    fit(pod, "trainjob")
    labels = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    node = {"name": "node", "template": {"metadata": {"labels": labels}, "spec": {"template": {"spec": pod}}}}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainingRuntime",
        "metadata": {"name": RUNTIME, "labels": {"trainer.kubeflow.org/framework": "torch"}},
        "spec": {"mlPolicy": {"numNodes": 1, "torch": {}}, "template": {"spec": {"replicatedJobs": [node]}}},
    }


def pods_in(one: Any) -> Iterator[dict[str, Any]]:
    """The specs of the pods that an object asks for."""
    if isinstance(one, dict):
        if "containers" in one:
            yield one
        for inner in one.values():
            yield from pods_in(inner)
    elif isinstance(one, list):
        for inner in one:
            yield from pods_in(inner)


def trained(name: str) -> dict[str, Any]:
    """A pod that trains here, wherever it is scheduled."""
    pod = jobs.template(jobs.training_job(name, first_kernel=FAST_AND_SLOW, ranks_per_pod=1))
    del pod["nodeSelector"]
    return pod


def fit(pod: dict[str, Any], name: str) -> None:
    """Takes all of such a pod but what the example says of finding each other."""
    wanted = trained(name)
    ((container,), (fitted,)) = pod["containers"], wanted.pop("containers")
    own = [one | ({"value": "1"} if one["name"] == "PET_NPROC_PER_NODE" else {}) for one in container.get("env", ())]
    pod |= wanted
    container |= {**fitted, "name": container["name"], "env": [*own, *fitted["env"]]}


def reference(name: str) -> JobReference:
    """The job as an example's EnergyPlan names it."""
    (plan,) = (
        one for one in yaml.safe_load_all((EXAMPLES / f"{name}.yaml").read_text()) if one["kind"] == "EnergyPlan"
    )
    return JobReference.from_api(plan["spec"]["job"] | {"name": name})


def resource(name: str) -> str:
    """As kubectl takes the job."""
    kind = kind_of(reference(name)).resource
    return f"{kind.plural}.{kind.group}"


def uid_of(cluster: Cluster, name: str) -> str:
    return cluster.kubectl("get", resource(name), name, "--namespace", JOBS, "--output", "jsonpath={.metadata.uid}")


def restart_command(name: str) -> str:
    """What messages tell a user to type."""
    return kind_of(reference(name)).restart_command(JOBS, name)


def pods_of(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    """The job's pods that are on a node and not going."""
    selector = f"{kind_of(reference(name)).pod_label}={name}"
    text = cluster.kubectl("get", "pods", "--namespace", JOBS, "--selector", selector, "--output", "json")
    found = json.loads(text)["items"]
    return [pod for pod in found if "nodeName" in pod["spec"] and "deletionTimestamp" not in pod["metadata"]]


def uids_of(cluster: Cluster, name: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods_of(cluster, name)}


def wait_injected(release: Product, record: Recorder, name: str, *, instead_of: Collection[str] = ()) -> None:
    """Until a job has its two pods, others than those, with the trainer.

    A container that a busy host has kept from it starts without: then all is made anew, as the message says.
    """
    restarted = set[str]()

    def look() -> bool:
        uids = uids_of(release.cluster, name) - set(instead_of)
        outcomes = {uid: record.injected(uid) for uid in uids - restarted}
        if "Late" in outcomes.values():
            restarted.update(uids)
            shell(release.cluster, restart_command(name))
        return [*outcomes.values()] == ["Injected"] * 2

    until(f"the trainer in pods of {name}", BACK_S, look)


def slowed(release: Product, record: Recorder, name: str) -> tuple[str, set[str]]:
    """Returns at a moment when the GPU of the fast stage, rank 0, is locked: its node, and that GPU."""

    def node() -> str:
        rank = record.ranks(name).get(0)
        places = {pod["metadata"]["uid"]: str(pod["spec"]["nodeName"]) for pod in pods_of(release.cluster, name)}
        if rank is None or rank.pod_uid not in places:
            raise NotYetError(f"rank 0 is {rank and rank.pod}")
        return places[rank.pod_uid]

    until(f"rank 0 of {name}", BACK_S, node)
    return node(), while_locked(release, record, name, node())


def suspend(cluster: Cluster, name: str, suspended: bool) -> None:
    patch = json.dumps({"spec": {"suspend": suspended}})
    cluster.kubectl("patch", resource(name), name, "--namespace", JOBS, "--type=merge", "--patch", patch)


def shell(cluster: Cluster, command: str) -> None:
    """As a user types it."""
    subprocess.run(command, shell=True, check=True, env={**os.environ, **cluster.environment}, timeout=120)


def of_each(check: Callable[[str], None]) -> None:
    """Of all three side by side: each mostly waits."""
    with ThreadPoolExecutor(len(NAMES)) as pool:
        failed = [done.exception() for done in [pool.submit(check, name) for name in NAMES]]
    if errors := [error for error in failed if isinstance(error, Exception)]:
        raise ExceptionGroup("of these kinds", errors)


@pytest.fixture(scope="module", autouse=True)
def served(release: Product, record: Recorder) -> Iterator[None]:
    """The jobs, and who makes their pods."""
    cluster = release.cluster
    with trainer(cluster):
        jobs.apply(cluster, jobs.script())
        until("the Trainer's webhooks", 60, lambda: jobs.apply(cluster, runtime()))
        for name in NAMES:
            plan = jobs.energy_plan(name, job=reference(name).to_api())
            until(f"the webhooks of {name}", 60, functools.partial(jobs.apply, cluster, plan, *example(name)))
            wait_injected(release, record, name)
        yield
        for name in NAMES:
            where = ("--namespace", JOBS, "--ignore-not-found", "--cascade=foreground")
            cluster.kubectl("delete", resource(name), name, *where)
            cluster.kubectl("delete", "energyplan", name, *where)


def test_its_pods_get_the_trainer_and_its_plan_comes_into_force(release: Product, record: Recorder) -> None:
    def check(name: str) -> None:
        in_force(release, record, name, 2)
        plan = record.plan(name)
        assert plan is not None
        assert (plan.job, plan.job_uid) == (name, uid_of(release.cluster, name))
        slowed(release, record, name)

    of_each(check)


def test_a_plan_for_what_a_job_has_made_says_which_job_to_name(release: Product, record: Recorder) -> None:
    job = {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "name": "trainjob"}
    jobs.apply(release.cluster, jobs.energy_plan("below", job=job))
    status = record.wait("below", "the word", 60, lambda one: one.progress == "MadeByAnotherJob")
    assert "JobSet trainjob was made by TrainJob trainjob" in status.message
    release.cluster.kubectl("delete", "energyplan", "below", "--namespace", JOBS)


def test_suspended_under_its_plan_it_leaves_no_clock_locked_and_is_said_to_be_suspended_and_resumed_it_has_a_plan_again(
    release: Product, record: Recorder
) -> None:
    cluster = release.cluster

    def check(name: str) -> None:
        before = uids_of(cluster, name)
        node, gpus = slowed(release, record, name)
        since_ns = time.monotonic_ns()
        suspend(cluster, name, True)
        wait_returned(release, node, gpus, since_ns)
        record.wait(name, "the suspension", 60, lambda status: status.progress == "Suspended")
        until("no JobPlan", 30, lambda: record.plan(name) is None)
        until("the end of its pods", BACK_S, lambda: not before & uids_of(cluster, name))
        if name == "job":
            shell(cluster, restart_command(name))  # it suspends and resumes
        else:
            suspend(cluster, name, False)
        wait_injected(release, record, name, instead_of=before)
        in_force(release, record, name, 2)
        assert {rank.pod_uid for rank in record.ranks(name).values()} == uids_of(cluster, name)
        assert record.status(name).job_uid == uid_of(cluster, name)

    of_each(check)


def test_made_anew_in_mid_run_it_is_another_run_and_no_clock_stays_locked(release: Product, record: Recorder) -> None:
    """By the command that messages print; a Job's only suspends and resumes it, so that one is deleted here."""
    cluster = release.cluster

    def check(name: str) -> None:
        before, uid = uids_of(cluster, name), uid_of(cluster, name)
        node, gpus = slowed(release, record, name)
        since_ns = time.monotonic_ns()
        if name == "job":
            cluster.kubectl("delete", "job", name, "--namespace", JOBS)
            record.wait(name, "the end", 60, lambda status: status.message.startswith("Job job was deleted."))
            jobs.apply(cluster, *example(name))
        else:
            shell(cluster, restart_command(name))
        wait_returned(release, node, gpus, since_ns)
        wait_injected(release, record, name, instead_of=before)
        assert uid_of(cluster, name) != uid

    of_each(check)


def test_when_it_ends_its_plan_goes_and_it_is_said_to_have_succeeded(release: Product, record: Recorder) -> None:
    cluster = release.cluster

    def check(name: str) -> None:
        def its_ranks() -> bool:
            return {rank.pod_uid for rank in record.ranks(name).values()} == uids_of(cluster, name)

        until("its ranks", BACK_S, its_ranks)
        gpus = {rank.gpu_uuid for rank in record.ranks(name).values()}
        jobs.stop(cluster, name, max(rank.iteration for rank in record.ranks(name).values()) + jobs.AHEAD)
        status = record.wait(name, "Completed", BACK_S, lambda status: status.phase is Phase.COMPLETED)
        assert status.message.startswith(f"{kind_of(reference(name)).resource.kind} {name} succeeded. ")
        until("no JobPlan", 30, lambda: record.plan(name) is None)
        until("no lock", 30, lambda: not any(release.gpus(node).locked() & gpus for node in ("node0", "node1")))
        metadata = json.loads(cluster.kubectl("get", resource(name), name, "-n", JOBS, "--output", "json"))["metadata"]
        assert not any("joulepath" in one for one in metadata.get("finalizers", ()))

    of_each(check)
