"""The objects that the chart renders, and what they are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from real_cluster import Cluster

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/joulepath"
NAMESPACE = "joulepath-system"
Object = dict[str, Any]


def render(cluster: Cluster, *arguments: str, release: str = "joulepath") -> list[Object]:
    """The objects that an install would make; with the webhook, unless it is said otherwise."""
    options = ("--namespace", NAMESPACE, "--set", "injection=volumes")
    text = cluster.helm("template", release, CHART, *options, *arguments)
    return [one for one in yaml.safe_load_all(text) if one]


def only(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of this kind and name."""
    (found,) = [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def workloads(objects: list[Object]) -> dict[str, Object]:
    """The pod specs of Deployments and DaemonSets, by component."""
    return {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"]["spec"]
        for one in objects
        if one["kind"] in {"Deployment", "DaemonSet"}
    }


def grants(objects: list[Object], part: str) -> set[tuple[str, str]]:
    """(verb, group/resource) that a part's roles grant."""
    return {
        (verb, f"{group}/{resource}")
        for one in objects
        if one["kind"] in {"Role", "ClusterRole"} and one["metadata"]["name"] == f"joulepath-{part}"
        for rule in one["rules"]
        for group in rule.get("apiGroups", ())
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
