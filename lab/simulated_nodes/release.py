"""The chart's part that no node is needed for: CRDs, accounts, rights and policies; and how it starts the operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from real_cluster.binaries import operator_manifests, program
from real_cluster.commands import run, until
from simulated_nodes.place import Place

__all__ = ["AGENT", "NAMESPACE", "OPERATOR", "Release", "install", "pytorchjobs"]

NAMESPACE: Final = "joulepath-system"
OPERATOR: Final = "joulepath-operator"
AGENT: Final = "joulepath-agent"
"""Names of their service accounts."""
_NAME: Final = "joulepath"
_ROOT: Final = Path(__file__).parents[2]
_NODES: Final = frozenset({"Deployment", "DaemonSet", "Job", "Pod", "Service", "NetworkPolicy"})
"""Kinds that somebody runs, or that steer a network."""
_HOOK: Final = "helm.sh/hook"
_ESTABLISHED_S: Final = 60


@dataclass(frozen=True, slots=True)
class Release:
    """How the chart starts the operator."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]


def install(place: Place) -> Release:
    """Applies it all, and the CRD of PyTorchJobs."""
    chart = _ROOT / "charts/joulepath"
    rendered = run([program("helm"), "template", _NAME, chart, "--namespace", NAMESPACE, "--skip-tests"])
    objects = [
        one for one in yaml.safe_load_all(rendered) if one and _HOOK not in one["metadata"].get("annotations", {})
    ]
    place.kubectl("create", "namespace", NAMESPACE)
    crds = [one for one in objects if one["kind"] == "CustomResourceDefinition"]
    _apply(place, [*crds, *pytorchjobs()])
    _apply(place, [one for one in objects if one["kind"] not in _NODES and one not in crds])
    until("the CRDs", _ESTABLISHED_S, lambda: place.kubectl("get", "pytorchjobs,energyplans,jobplans,nodestates", "-A"))
    operator = next(one for one in objects if one["kind"] == "Deployment" and one["metadata"]["name"] == OPERATOR)
    container = operator["spec"]["template"]["spec"]["containers"][0]
    return Release(
        arguments=tuple(container["args"]),
        environment={one["name"]: str(one["value"]) for one in container["env"] if "value" in one},
    )


def pytorchjobs() -> list[dict[str, Any]]:
    """The CRD of PyTorchJobs."""
    crds = operator_manifests() / "base" / "crds"
    return [yaml.safe_load((crds / "kubeflow.org_pytorchjobs.yaml").read_text())]


def _apply(place: Place, objects: Sequence[Mapping[str, Any]]) -> None:
    place.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(objects))
