"""Jobs of each other kind train on the cluster as a PyTorchJob does: a Job, a JobSet, a TrainJob, from the examples.

All at once, since they share what is brought up for them and mostly wait.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from joulepath_crds import JobReference, Phase
from joulepath_operator.jobs.kinds import kind_of
from real_cluster import Cluster, trainer, until
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
every_kind = pytest.mark.parametrize("name", NAMES)


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


def pods_of(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    selector = f"{kind_of(reference(name)).pod_label}={name}"
    text = cluster.kubectl("get", "pods", "--namespace", JOBS, "--selector", selector, "--output", "json")
    return list(json.loads(text)["items"])


def outcomes(release: Product, record: Recorder, name: str) -> list[str]:
    """What became of each container of a job's pods."""
    return [record.injected(pod["metadata"]["uid"]) for pod in pods_of(release.cluster, name)]


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
        yield
        for name in NAMES:
            where = ("--namespace", JOBS, "--ignore-not-found", "--cascade=foreground")
            cluster.kubectl("delete", resource(name), name, *where)
            cluster.kubectl("delete", "energyplan", name, *where)


@every_kind
def test_its_pods_get_the_trainer_and_its_plan_comes_into_force(release: Product, record: Recorder, name: str) -> None:
    until("the trainer", BACK_S, lambda: outcomes(release, record, name) == ["Injected"] * 2)
    in_force(release, record, name, 2)
    uid = release.cluster.kubectl("get", resource(name), name, "-n", JOBS, "--output", "jsonpath={.metadata.uid}")
    plan = record.plan(name)
    assert plan is not None
    assert (plan.job, plan.job_uid) == (name, uid)


def test_a_plan_for_what_a_job_has_made_says_which_job_to_name(release: Product, record: Recorder) -> None:
    job = {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "name": "trainjob"}
    jobs.apply(release.cluster, jobs.energy_plan("below", job=job))
    status = record.wait("below", "the word", 60, lambda one: one.progress == "MadeByAnotherJob")
    assert "JobSet trainjob was made by TrainJob trainjob" in status.message
    release.cluster.kubectl("delete", "energyplan", "below", "--namespace", JOBS)


@every_kind
def test_the_command_that_messages_print_starts_it_anew_and_no_clock_stays_locked(
    release: Product, record: Recorder, name: str
) -> None:
    cluster, before = release.cluster, {pod["metadata"]["uid"] for pod in pods_of(release.cluster, name)}
    node = next(iter({pod["spec"]["nodeName"] for pod in pods_of(cluster, name)}))
    gpus = while_locked(release, record, name, node)
    since_ns = time.monotonic_ns()
    command = kind_of(reference(name)).restart_command(JOBS, name)
    subprocess.run(command, shell=True, check=True, env={**os.environ, **cluster.environment}, timeout=120)
    wait_returned(release, node, gpus, since_ns)

    def anew() -> bool:
        uids = {pod["metadata"]["uid"] for pod in pods_of(cluster, name)}
        return len(uids) == 2 and not uids & before and outcomes(release, record, name) == ["Injected"] * 2

    until("the trainer in new pods", BACK_S, anew)


@every_kind
def test_when_it_ends_its_plan_goes_and_it_is_said_to_have_succeeded(
    release: Product, record: Recorder, name: str
) -> None:
    until("its ranks", BACK_S, lambda: len(record.ranks(name)) == 2)
    jobs.stop(release.cluster, name, max(rank.iteration for rank in record.ranks(name).values()) + 8)
    kind = kind_of(reference(name)).resource.kind
    status = record.wait(name, "Completed", BACK_S, lambda status: status.phase is Phase.COMPLETED)
    assert status.message.startswith(f"{kind} {name} succeeded. ")
    until("no JobPlan", 30, lambda: record.plan(name) is None)
    gpus = {rank.gpu_uuid for rank in record.ranks(name).values()}
    until("no lock", 30, lambda: not any(release.gpus(node).locked() & gpus for node in ("node0", "node1")))
