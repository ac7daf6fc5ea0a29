"""The example's manifests, fitted to a cluster: what differs from machine to machine is changed here, nothing else.

The files of `examples` are what a person reads and applies; the demo overlays the image, the folder of
the Python environment, and how long to train.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

__all__ = ["VOLUMES_LABEL", "TrainingPlace", "energy_plan", "job_namespace", "python_volumes", "pytorch_job"]

_STORAGE: Final = {"storageClassName": "", "accessModes": ["ReadOnlyMany"]}
_SIZE: Final = {"storage": "1Gi"}
VOLUMES_LABEL: Final = "joulepath.dev/demo"
"""On volumes, which are in no namespace: the one that they were made for."""


@dataclass(frozen=True, slots=True)
class TrainingPlace:
    """What the training pods need to know of the machines that they run on."""

    namespace: str
    image: str
    pull_policy: str
    python: Path
    """The interpreter of the environment with torch, as the pods see it."""
    host_folders: tuple[Path, ...]
    """Folders of the nodes that make up that environment, mounted read-only under their own names."""
    closed_folders: tuple[Path, ...] = ()
    """Folders above these that only root may enter: in the pods, empty ones take their place."""


def _load(file: Path, namespace: str) -> dict[str, Any]:
    manifest: dict[str, Any] = yaml.safe_load(file.read_text())
    manifest["metadata"]["namespace"] = namespace
    return manifest


def pytorch_job(example: Path, place: TrainingPlace, steps: int, more: Sequence[str] = ()) -> dict[str, Any]:
    """`pytorchjob.yaml` for this cluster, with more arguments of its script."""
    job = _load(example / "pytorchjob.yaml", place.namespace)
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        replica["template"] = copy.deepcopy(replica["template"])  # both replicas share one YAML anchor
        pod = replica["template"]["spec"]
        _overlay(pod, place, steps)
        pod["containers"][0]["args"] += more
    return job


def _overlay(pod: dict[str, Any], place: TrainingPlace, steps: int) -> None:
    (container,) = pod["containers"]
    container["image"] = place.image
    container["imagePullPolicy"] = place.pull_policy
    container["command"] = [str(place.python), *container["command"][1:]]
    arguments = container["args"]
    arguments[arguments.index("--steps") + 1] = str(steps)
    mounts = [mount for mount in container["volumeMounts"] if mount["name"] != "python"]
    volumes = [volume for volume in pod["volumes"] if volume["name"] != "python"]
    for index, closed in enumerate(place.closed_folders):
        mounts.append({"name": f"open-{index}", "mountPath": str(closed)})
        volumes.append({"name": f"open-{index}", "emptyDir": {}})
    for name, folder in _claims(place).items():
        mounts.append({"name": name, "mountPath": str(folder), "readOnly": True})
        volumes.append({"name": name, "persistentVolumeClaim": {"claimName": name, "readOnly": True}})
    container["volumeMounts"], pod["volumes"] = mounts, volumes


def _claims(place: TrainingPlace) -> dict[str, Path]:
    return {f"python-{index}": folder for index, folder in enumerate(place.host_folders)}


def python_volumes(place: TrainingPlace) -> tuple[dict[str, Any], ...]:
    """A local volume for each folder of the Python environment, and the claim that the job's pods name.

    Pod Security's level `restricted` allows claims, and no hostPath.
    """
    return tuple(
        made
        for name, folder in _claims(place).items()
        for made in (_volume(place.namespace, name, folder), _claim(place.namespace, name))
    )


def _volume(namespace: str, claim: str, folder: Path) -> dict[str, Any]:
    anywhere = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{claim}", "labels": {VOLUMES_LABEL: namespace}},
        "spec": {
            **_STORAGE,
            "capacity": _SIZE,
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": namespace, "name": claim},
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [anywhere]}]}},
        },
    }


def _claim(namespace: str, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**_STORAGE, "resources": {"requests": _SIZE}, "volumeName": f"{namespace}-{name}"},
    }


def job_namespace(name: str, injection: str) -> dict[str, Any]:
    """The namespace of the job: it asks for volumes, or is at Pod Security's strictest level."""
    volumes = injection == "volumes"
    labels = {"joulepath.dev/injection": "volumes"} if volumes else {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def energy_plan(example: Path, namespace: str, mode: str, granularity: str) -> dict[str, Any]:
    """`energyplan.yaml` for this cluster."""
    plan = _load(example / "energyplan.yaml", namespace)
    plan["spec"] |= {"mode": mode, "granularity": granularity}
    return plan
