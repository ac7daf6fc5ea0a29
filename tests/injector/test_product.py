"""The whole product where the node injects: a namespace at `restricted` trains, is seen, and is slowed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from joulepath_crds import NodeReportStatus
from real_cluster import Cluster, NotYetError, only_release, until
from tests.end_to_end import jobs, product, watching
from tests.end_to_end.product import Product
from tests.end_to_end.watching import Recorder

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

NAMESPACE: Final = product.JOBS
ALLOWED: Final = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
OWN: Final = Path(sys.base_prefix) != Path("/usr")
"""Whether the Python is one of its own, not the image's as well."""
_VERSION: Final = f"python{sys.version_info[0]}.{sys.version_info[1]}"
FOLDERS: Final = {
    **({"python": (sys.base_prefix, "/opt/python")} if OWN else {}),
    "packages": (
        f"{sys.prefix}/lib/{_VERSION}/site-packages",
        f"/opt/python/lib/{_VERSION}/site-packages" if OWN else f"/usr/local/lib/{_VERSION}/dist-packages",
    ),
}
"""Of the nodes, and where pods mount them, by claims, which `restricted` allows."""


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Product]:
    with only_release():
        product.refuse_another_release(cluster)
        clear(cluster)
        product.prepare(cluster)
        cluster.kubectl("create", "namespace", NAMESPACE)
        cluster.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
        jobs.apply(cluster, *(one for name in FOLDERS for one in volume(name)))
        try:
            product.install(cluster, injection="nri")
            yield Product(cluster, {})
        finally:
            for part in ("operator", "agent"):
                chosen = ("--selector", f"app.kubernetes.io/component={part}", "--namespace", product.SYSTEM)
                print(cluster.kubectl("logs", *chosen, "--tail=100", "--prefix", "--all-containers"))
            clear(cluster)


def clear(cluster: Cluster) -> None:
    """Removes the release, its job and the volumes, whatever is left of them."""
    product.clear(cluster)
    cluster.kubectl("delete", "persistentvolume", *(f"{NAMESPACE}-{name}" for name in FOLDERS), "--ignore-not-found")


@pytest.fixture(scope="module")
def record(release: Product) -> Iterator[Recorder]:
    with watching.recorder(release.cluster.kubeconfig) as made:
        yield made


def volume(name: str) -> tuple[dict[str, Any], ...]:
    """A folder of every node as a PersistentVolume, and the claim that it is for."""
    common = {"storageClassName": "", "accessModes": ["ReadOnlyMany"]}
    claim = {"kind": "PersistentVolumeClaim", "namespace": NAMESPACE, "name": name}
    return (
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{NAMESPACE}-{name}"},
            "spec": {
                **common,
                "capacity": {"storage": "1Gi"},
                "hostPath": {"path": FOLDERS[name][0]},
                "claimRef": claim,
                "persistentVolumeReclaimPolicy": "Retain",
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                **common,
                "volumeName": f"{NAMESPACE}-{name}",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
    )


def restricted_job(name: str) -> dict[str, Any]:
    """The pipeline of four ranks on two nodes, by pods of nobody's that mount nothing of the host."""
    job = jobs.training_job(name, first_kernel=product.UNEVEN)
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        pod = replica["template"]["spec"]
        (container,) = pod["containers"]
        pod["volumes"] = [one for one in pod["volumes"] if "hostPath" not in one]
        there = {one["name"] for one in pod["volumes"]}
        container["volumeMounts"] = [one for one in container["volumeMounts"] if one["name"] in there]
        for folder, (_, path) in FOLDERS.items():
            claim = {"claimName": folder, "readOnly": True}
            pod["volumes"].append({"name": folder, "persistentVolumeClaim": claim})
            container["volumeMounts"].append({"name": folder, "mountPath": path, "readOnly": True})
        container["command"][0] = "/opt/python/bin/python3" if OWN else "python3"
        container["securityContext"] = ALLOWED
        container["env"] += [
            {"name": "LD_LIBRARY_PATH", "value": "/opt/python/lib"},
            {"name": "HOME", "value": "/tmp"},
            {"name": "USER", "value": "nobody"},
        ]
    return job


@pytest.fixture(scope="module")
def training(release: Product, record: Recorder) -> str:
    """The job's name."""
    jobs.apply(release.cluster, jobs.script(), jobs.energy_plan("strict"))
    jobs.apply(release.cluster, restricted_job("strict"))
    return "strict"


def test_a_restricted_namespace_trains_and_each_rank_is_seen(release: Product, record: Recorder, training: str) -> None:
    def look() -> None:
        if len(seen := record.ranks(training)) < 4:
            made = jobs.pods(release.cluster, training)
            raise NotYetError(f"{sorted(seen)} of {[(pod['metadata']['name'], pod['status']) for pod in made]}")

    until("four ranks", 300, look)


def test_its_pods_are_what_they_were_written_to_be(release: Product, training: str) -> None:
    (wanted,) = restricted_job(training)["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
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
