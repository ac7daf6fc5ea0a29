"""The Kubeflow Trainer and JobSet, there while somebody asks for them: TrainJobs, and the JobSets that these become.

From their own manifests, with certificates that they make themselves. Left out are JobSet's webhooks for pods, which
refuse every pod of the cluster while it doesn't run, and serve placements that nobody asks for here.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from .binaries import TRAINER, jobset_manifests, other_binaries, trainer_manifests
from .cluster import Cluster
from .controllers import container_of, image, is_for_people, served

__all__ = ["trainer"]

_SYSTEM: Final = "kubeflow-system"
_PARTS: Final = {
    "jobset": "localhost/joulepath/jobset:1",
    "trainer-controller-manager": "localhost/joulepath/trainer:1",
}
_OBJECTS: Final = "trainjobs,trainingruntimes,clustertrainingruntimes,jobsets"


@contextlib.contextmanager
def trainer(cluster: Cluster) -> Iterator[None]:
    """Both, which serve; at the end they are removed, with all TrainJobs and JobSets that there are."""
    programs = other_binaries(TRAINER)
    for name, tag in _PARTS.items():
        cluster.load(image(programs / name, tag))
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _SYSTEM}}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(_kustomization(folder)))
        both = [cluster.kubectl("kustomize", one) for one in (jobset_manifests() / "default", folder)]
    made = [one for text in both for one in yaml.safe_load_all(text) if not is_for_people(one)]
    with served(cluster, [namespace, *map(_as_here, made)], _OBJECTS):
        yield


def _kustomization(folder: str) -> dict[str, Any]:
    """As the Trainer's own for its manager, which fetches JobSet from the network besides."""
    base = trainer_manifests() / "base"
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": _SYSTEM,
        "resources": [os.path.relpath(base / part, folder) for part in ("crds", "manager", "rbac", "webhook")],
        "secretGenerator": [{"name": "kubeflow-trainer-webhook-cert", "options": {"disableNameSuffixHash": True}}],
    }


def _as_here(one: dict[str, Any]) -> dict[str, Any]:
    """One of the manifests for a cluster without a registry."""
    if one["kind"] == "Deployment":
        part = "jobset" if one["metadata"]["namespace"] == "jobset-system" else "trainer-controller-manager"
        container_of(one, _PARTS[part])
    if "webhooks" in one:
        one["webhooks"] = [hook for hook in one["webhooks"] if not hook["name"].endswith("pod.kb.io")]
    return one
