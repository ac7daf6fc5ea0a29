"""The whole product where the node injects: a namespace at `restricted` trains, is seen, and is slowed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from joulepath_crds import NodeReportStatus
from real_cluster import Cluster, NotYetError, only_release, until
from tests.end_to_end import jobs, product, watching
from tests.end_to_end.product import Product
from tests.end_to_end.watching import Recorder

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
