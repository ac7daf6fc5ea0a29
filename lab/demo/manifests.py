"""The example's manifests, fitted to a cluster: what differs from machine to machine is changed here, nothing else.

The files in `examples/01-pytorchjob` are what a person reads and applies; the demo overlays the image, the folder of
the Python environment, and how long to train.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

__all__ = ["EXAMPLE", "TrainingPlace", "energy_plan", "pytorch_job"]

EXAMPLE: Final = Path(__file__).resolve().parents[2] / "examples/01-pytorchjob"


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


def _load(name: str, namespace: str) -> dict[str, Any]:
    manifest: dict[str, Any] = yaml.safe_load((EXAMPLE / name).read_text())
    manifest["metadata"]["namespace"] = namespace
    return manifest


def pytorch_job(place: TrainingPlace, steps: int) -> dict[str, Any]:
    """`pytorchjob.yaml` for this cluster."""
    job = _load("pytorchjob.yaml", place.namespace)
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        replica["template"] = copy.deepcopy(replica["template"])  # both replicas share one YAML anchor
        pod = replica["template"]["spec"]
        _overlay(pod, place, steps)
    return job


def _overlay(pod: dict[str, Any], place: TrainingPlace, steps: int) -> None:
    (container,) = pod["containers"]
    container["image"] = place.image
    container["imagePullPolicy"] = place.pull_policy
    container["command"] = [str(place.python), *container["command"][1:]]
    arguments = container["args"]
    arguments[arguments.index("--steps") + 1] = str(steps)
    names = {f"python-{index}": str(folder) for index, folder in enumerate(place.host_folders)}
    container["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] != "python"]
    container["volumeMounts"] += [{"name": name, "mountPath": path, "readOnly": True} for name, path in names.items()]
    pod["volumes"] = [volume for volume in pod["volumes"] if volume["name"] != "python"]
    pod["volumes"] += [{"name": name, "hostPath": {"path": path}} for name, path in names.items()]


def energy_plan(namespace: str, mode: str, granularity: str) -> dict[str, Any]:
    """`energyplan.yaml` for this cluster."""
    plan = _load("energyplan.yaml", namespace)
    plan["spec"] |= {"mode": mode, "granularity": granularity}
    return plan
