"""Kueue, there while somebody asks for it: it makes PyTorchJobs of one namespace wait for quota.

From its own manifests, with certificates that it makes itself. Left out is what this cluster has no use for: its
webhooks for other kinds of job, which refuse all of them while it doesn't run, and its own API for those who wait.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from .archive import write_image
from .binaries import KUEUE, kueue_manifests, other_binaries
from .cluster import Cluster
from .commands import CommandError
from .kept import content_hash, kept
from .layout import cache_folder

__all__ = ["kueue"]

_IMAGE: Final = "localhost/joulepath/kueue:1"
_SYSTEM: Final = "kueue-system"
_WEBHOOKS: Final = ("clusterqueue", "cohort", "pytorchjob", "resourceflavor", "workload")
_OBJECTS: Final = "workloads,localqueues,clusterqueues,resourceflavors,workloadpriorityclasses"
_CONFIGURATION: Final = {
    "apiVersion": "config.kueue.x-k8s.io/v1beta2",
    "kind": "Configuration",
    "health": {"healthProbeBindAddress": ":8081"},
    "metrics": {"bindAddress": ":8443"},
    "webhook": {"port": 9443},
    "leaderElection": {"leaderElect": False},
    "integrations": {"frameworks": ["kubeflow.org/pytorchjob"]},
    "featureGates": {"VisibilityOnDemand": False},
}


@contextlib.contextmanager
def kueue(cluster: Cluster, namespace: str) -> Iterator[None]:
    """Kueue, which serves; at the end it is removed, with all that it knows: let its jobs be gone by then."""
    cluster.load(_image())
    base = kueue_manifests() / "default"
    made = filter(None, map(_as_here, yaml.safe_load_all(cluster.kubectl("kustomize", base))))
    # Whatever else there is of PyTorchJobs in this cluster waits for nobody.
    manifests = yaml.safe_dump_all([_within(one, namespace) for one in made])
    deployment = "deployment/kueue-controller-manager"
    try:
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename", "-", stdin=manifests)
        cluster.kubectl("rollout", "status", "--namespace", _SYSTEM, deployment, "--timeout=120s")
        yield
    finally:
        with contextlib.suppress(CommandError):
            print(cluster.kubectl("logs", "--namespace", _SYSTEM, deployment, "--tail=100"))
        cluster.kubectl("delete", _OBJECTS, "--all", "--all-namespaces", "--timeout=60s")
        cluster.kubectl("delete", "--ignore-not-found", "--timeout=60s", "--filename", "-", stdin=manifests)


def _image() -> Path:
    program = other_binaries(KUEUE) / "kueue"
    key = content_hash([str(program.resolve())])

    def make(folder: Path) -> None:
        write_image(folder / "image.tar", _IMAGE, {"manager": program.read_bytes()})

    return kept(cache_folder() / "images" / f"kueue-{key}", make) / "image.tar"


def _as_here(one: dict[str, Any]) -> dict[str, Any] | None:
    """One of the manifests for a cluster without a registry; None where it is left out."""
    name = one["metadata"]["name"]
    if one["kind"] == "APIService" or name.endswith(("-editor-role", "-viewer-role")):
        return None
    if name == "kueue-manager-config":
        one["data"] = {"controller_manager_config.yaml": yaml.safe_dump(_CONFIGURATION)}
    if one["kind"] == "Deployment":
        pod = one["spec"]["template"]["spec"]
        pod["securityContext"]["runAsUser"] = 65532  # it mustn't be root, and the image names nobody
        (container,) = pod["containers"]
        container |= {"image": _IMAGE, "imagePullPolicy": "Never"}
        container["resources"]["requests"] = {"cpu": "100m", "memory": "64Mi"}
        container["readinessProbe"] |= {"initialDelaySeconds": 1, "periodSeconds": 1}
    return one


def _within(one: dict[str, Any], namespace: str) -> Mapping[str, Any]:
    if "webhooks" in one:
        one["webhooks"] = [hook for hook in one["webhooks"] if any(kind in hook["name"] for kind in _WEBHOOKS)]
        for hook in one["webhooks"]:
            hook["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    return one
