"""The whole product where the node injects: a namespace at `restricted` trains, is seen, is slowed, and may queue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from joulepath_crds import NodeReportStatus
from real_cluster import Cluster, NotYetError, only_release, until
from tests.end_to_end import jobs, product, watching
from tests.end_to_end.product import Product
from tests.end_to_end.watching import Recorder
from tests.injector.test_real_runtime import ALLOWED

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

NAMESPACE: Final = product.JOBS


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Product]:
    with only_release():
        product.refuse_another_release(cluster)
        product.clear(cluster)
        product.prepare(cluster)
        cluster.kubectl("create", "namespace", NAMESPACE)
        cluster.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
        jobs.apply(cluster, *jobs.python_volumes())
        try:
            product.install(cluster, injection="nri")
            yield Product(cluster, {})
        finally:
            for part in ("operator", "agent"):
                chosen = ("--selector", f"app.kubernetes.io/component={part}", "--namespace", product.SYSTEM)
                print(cluster.kubectl("logs", *chosen, "--tail=100", "--prefix", "--all-containers"))
            product.clear(cluster)


@pytest.fixture(scope="module")
def record(release: Product) -> Iterator[Recorder]:
    with watching.recorder(release.cluster.kubeconfig) as made:
        yield made


@pytest.fixture(scope="module")
def training(release: Product, record: Recorder) -> str:
    """The job's name."""
    jobs.apply(release.cluster, jobs.script(), jobs.energy_plan("strict"))
    jobs.apply(release.cluster, jobs.training_job("strict", first_kernel=product.UNEVEN))
    return "strict"


def test_a_restricted_namespace_trains_and_each_rank_is_seen(release: Product, record: Recorder, training: str) -> None:
    def look() -> None:
        if len(seen := record.ranks(training)) < 4:
            made = jobs.pods(release.cluster, training)
            raise NotYetError(f"{sorted(seen)} of {[(pod['metadata']['name'], pod['status']) for pod in made]}")

    until("four ranks", 300, look)


def test_its_pods_are_what_they_were_written_to_be(release: Product, training: str) -> None:
    job = jobs.training_job(training, first_kernel=product.UNEVEN)
    (wanted,) = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
    written = {one["name"] for one in wanted["env"]}
    for pod in jobs.pods(release.cluster, training, count=2):
        (made,) = pod["spec"]["containers"]
        mounted = [one["name"] for one in made["volumeMounts"] if not one["name"].startswith("kube-api-access")]
        assert mounted == [one["name"] for one in wanted["volumeMounts"]]
        assert not {one["name"] for one in made["env"]} & {"PYTHONPATH", "JOULEPATH_SOCKET"} - written
        assert not any("joulepath" in name for name in pod["metadata"].get("annotations") or {})


def test_what_became_of_each_container_stands_in_the_nodes_reports(record: Recorder, training: str) -> None:
    told = {}
    for one in record.living("nodereports").values():
        for injection in NodeReportStatus.from_api(one.body["status"]).injection:
            told[injection.pod, injection.container] = injection.outcome
    assert told == {(f"{training}-{role}-0", "pytorch"): "Injected" for role in ("master", "worker")}


def test_its_plan_is_in_force_and_the_training_ends_as_it_would(
    release: Product, record: Recorder, training: str
) -> None:
    ask = jobs.asking_anew(release.cluster, record, training)

    def look() -> None:
        ask()
        record.applied(training, limit_s=0)

    until("a plan in force", 600, look)
    jobs.stop(release.cluster, training, max(rank.iteration for rank in record.ranks(training).values()) + 20)
    jobs.phase(release.cluster, training, "Succeeded")


SAY_HELLO: Final = """
import os, signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
sys.path.insert(0, "/joulepath")
from joulepath_trainer.memory import OwnPage
from joulepath_trainer.wire.messages import Hello, PipelinePlace
rank, gpu, page = int(sys.argv[1]), os.environ["NVIDIA_VISIBLE_DEVICES"], OwnPage()
hello = Hello(rank, 0, 2, 0, gpu, "stream", PipelinePlace("Schedule1F1B", 2, 1, (rank,), (0, 1)))
while True:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            connection.connect(os.environ["JOULEPATH_SOCKET"])
            socket.send_fds(connection, [hello.encode()], [page.descriptor])
            print(gpu, connection.recv(4096), flush=True)
            connection.recv(1)
        except OSError as error:
            print(error, flush=True)
    time.sleep(0.5)
"""


def waiting_job(name: str, **more: Any) -> dict[str, Any]:
    """As of others, where `restricted` holds, on node0."""
    job = jobs.waiting_job(name, security=ALLOWED, **more)
    template(job)["nodeSelector"] = {"kubernetes.io/hostname": "node0"}
    return job


def template(job: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    return made


def outcomes(record: Recorder, job: str) -> dict[str, str]:
    """What became of the containers of a job's first pod."""
    reports = [NodeReportStatus.from_api(one.body.get("status") or {}) for one in record.living("nodereports").values()]
    told = [one for report in reports for one in report.injection if one.pod == f"{job}-master-0"]
    return {one.container: one.outcome for one in told}


def test_containers_with_gpus_of_one_pod_are_told_one_by_one_and_each_is_known_by_its_own_gpu(
    release: Product, record: Recorder
) -> None:
    job = waiting_job("pair", image=product.PYTHONPATH_IMAGE)
    pod = template(job)
    (first,) = pod["containers"]
    sidecar = {**first, "name": "sidecar", "resources": {}}
    second = {**first, "name": "second", "command": ["python3", "-c", SAY_HELLO, "1"]}
    pod["containers"] = [{**first, "command": ["python3", "-c", SAY_HELLO, "0"]}, second, sidecar]
    jobs.apply(release.cluster, job)

    def both() -> None:
        if len(seen := record.ranks("pair")) < 2:
            raise NotYetError(f"{seen}, {outcomes(record, 'pair')}")

    until("both ranks", 120, both)
    until("their outcomes", 60, lambda: outcomes(record, "pair") == {"pytorch": "Injected", "second": "Injected"})
    for rank, container in enumerate(("pytorch", "second")):
        gpu = record.ranks("pair")[rank].gpu_uuid
        chosen = ("--namespace", NAMESPACE, "--container", container)
        assert gpu in release.cluster.kubectl("logs", "pair-master-0", *chosen)
    # The end of one is the end of its rank alone.
    release.cluster.kubectl("exec", "pair-master-0", *chosen, "--", "python3", "-c", "import os; os.kill(1, 15)")
    until("the end of one", 60, lambda: set(record.ranks("pair")) == {0})
    release.cluster.kubectl("delete", "pytorchjob", "pair", "--namespace", NAMESPACE)


def test_a_job_that_is_suspended_is_said_to_be_so_and_nothing_else_and_injected_once_it_is_resumed(
    release: Product, record: Recorder
) -> None:
    job = waiting_job("resumed")
    job["spec"]["runPolicy"]["suspend"] = True
    jobs.apply(release.cluster, job, jobs.energy_plan("resumed"))

    def reasons() -> set[str]:
        told = [one.body.get("status") or {} for one in record.versions("energyplans", "resumed")]
        return {one["reason"] for status in told for one in status.get("conditions", ()) if one["type"] == "Injected"}

    record.wait("resumed", "the suspension", 60, lambda status: "is suspended" in (status.message or ""))
    chosen = ("pytorchjob", "resumed", "--namespace", NAMESPACE)
    release.cluster.kubectl("wait", *chosen, "--for=condition=Suspended", "--timeout=60s")
    assert reasons() - {"NoJob"} == {"Suspended"}, "nor before the training operator had said so"
    assert not outcomes(record, "resumed")
    release.cluster.kubectl("patch", *chosen, "--type=merge", "--patch", '{"spec": {"runPolicy": {"suspend": false}}}')
    until("the trainer", 120, lambda: outcomes(record, "resumed") == {"pytorch": "Injected"})
    record.wait("resumed", "the wait for it", 60, lambda status: "first training step" in (status.message or ""))
    jobs.stop(release.cluster, "resumed")


def test_pods_that_wait_behind_a_gate_are_said_to_and_injected_once_it_is_open(
    release: Product, record: Recorder
) -> None:
    job = waiting_job("gated")
    template(job)["schedulingGates"] = [{"name": "kueue.x-k8s.io/admission"}]
    jobs.apply(release.cluster, jobs.energy_plan("gated"), job)
    record.wait("gated", "the gate", 60, lambda status: "SchedulingGated" in (status.message or ""))
    opened = '[{"op": "remove", "path": "/spec/schedulingGates"}]'
    chosen = ("pod", "gated-master-0", "--namespace", NAMESPACE)
    release.cluster.kubectl("patch", *chosen, "--type=json", "--patch", opened)
    until("the trainer", 120, lambda: outcomes(record, "gated") == {"pytorch": "Injected"})
    jobs.stop(release.cluster, "gated")
