"""Kueue, there while somebody asks for it: it makes PyTorchJobs of one namespace wait for quota.

From its own manifests, with certificates that it makes itself. Left out is what this cluster has no use for: its
webhooks for other kinds of job, which refuse all of them while it doesn't run, and its own API for those who wait.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from .binaries import KUEUE, kueue_manifests, other_binaries
from .cluster import Cluster
from .controllers import container_of, image, is_for_people, served

__all__ = ["kueue"]

_IMAGE: Final = "localhost/joulepath/kueue:1"
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
    cluster.load(image(other_binaries(KUEUE) / "kueue", _IMAGE))
    manifests = yaml.safe_load_all(cluster.kubectl("kustomize", kueue_manifests() / "default"))
    made = filter(None, map(_as_here, manifests))
    # Whatever else there is of PyTorchJobs in this cluster waits for nobody.
    with served(cluster, [_within(one, namespace) for one in made], _OBJECTS):
        yield


def _as_here(one: dict[str, Any]) -> dict[str, Any] | None:
    """One of the manifests for a cluster without a registry; None where it is left out."""
    if one["kind"] == "APIService" or is_for_people(one):
        return None
    if one["metadata"]["name"] == "kueue-manager-config":
        one["data"] = {"controller_manager_config.yaml": yaml.safe_dump(_CONFIGURATION)}
    if one["kind"] == "Deployment":
        container_of(one, _IMAGE)
    return one


def _within(one: dict[str, Any], namespace: str) -> Mapping[str, Any]:
    if "webhooks" in one:
        one["webhooks"] = [hook for hook in one["webhooks"] if any(kind in hook["name"] for kind in _WEBHOOKS)]
        for hook in one["webhooks"]:
            hook["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    return one
