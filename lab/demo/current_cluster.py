"""The cluster of the current kubeconfig: nothing is built, images come from a registry."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demo.manifests import TrainingPlace
from demo.options import Options
from demo.place import JOB_NAMESPACE, PlaceError, refuse_other_releases
from real_cluster.commands import run

__all__ = ["CurrentCluster"]


class CurrentCluster:
    """Somebody's cluster; only what the demo installs is removed at the end."""

    kubeconfig: Path | None = None

    def __init__(self, options: Options) -> None:
        self._options = options

    def prepare(self) -> None:
        missing = [name for name in ("kubectl", "helm") if not shutil.which(name)]
        if missing:
            raise PlaceError(f"{' and '.join(missing)} must be on the PATH to use the current cluster: install them.")
        found = self.kubectl("get", "crd", "pytorchjobs.kubeflow.org", "--ignore-not-found", "--output", "name")
        if not found.strip():
            raise PlaceError(
                "The cluster has no PyTorchJob: install the Kubeflow training operator 1.8 or newer in it."
            )

        refuse_other_releases(self)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return run(["kubectl", *arguments], stdin=stdin)

    def helm(self, *arguments: str) -> str:
        return run(["helm", *arguments])

    def values(self) -> Mapping[str, Any]:
        nvidia = self._options.gpu_kind == "nvidia"
        # Nothing labels nodes for virtual GPUs.
        agent = {"runtimeClassName": self._options.runtime_class} if nvidia else {"nodeSelector": None}
        image = {"registry": self._options.registry}
        return {"injection": self._options.injection, "image": image, "agent": agent}

    def training(self) -> TrainingPlace:
        image = self._options.training_image or f"{self._options.registry}/{self._options.workload.image}:1"
        python = self._options.python
        folders = self._options.python_folder or (python.parent.parent,)
        return TrainingPlace(JOB_NAMESPACE, image, "IfNotPresent", python, folders)

    def scrape(self) -> str | None:
        return None

    def slow(self, share: float) -> None:
        raise PlaceError("The GPUs of this cluster don't become slower because they are told to.")

    def leave(self) -> None:
        return

    def tools(self) -> Sequence[str]:
        return [f"kubectl --namespace {JOB_NAMESPACE} describe energyplan {self._options.workload.name}"]
