"""A Prometheus configuration for Joulepath's pods, and questions to a Prometheus.

Debian's Prometheus is built without discovery in Kubernetes, so the pods that ask for it by annotation are listed here.
"""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

__all__ = ["configuration", "query", "targets"]

_ANNOTATION: Final = "prometheus.io"


def targets(pods: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The running pods that want to be scraped, as Prometheus' static_configs."""
    found = []
    for pod in pods:
        wishes = pod["metadata"].get("annotations") or {}
        address = pod.get("status", {}).get("podIP")
        if wishes.get(f"{_ANNOTATION}/scrape") == "true" and address:
            labels = {
                "__metrics_path__": wishes.get(f"{_ANNOTATION}/path", "/metrics"),
                "component": pod["metadata"].get("labels", {}).get("app.kubernetes.io/component", ""),
            }
            found.append({"targets": [f"{address}:{wishes[f'{_ANNOTATION}/port']}"], "labels": labels})
    return found


def configuration(pods: Sequence[Mapping[str, Any]], interval: str = "2s") -> str:
    """Scrapes these pods at their own addresses."""
    job = {
        "job_name": "joulepath",
        "honor_labels": True,  # namespace, pod and job are those of the training, not of the pod that tells of them
        "static_configs": targets(pods),
    }
    return yaml.safe_dump({"global": {"scrape_interval": interval}, "scrape_configs": [job]}, sort_keys=False)


def query(url: str, expression: str) -> list[tuple[dict[str, str], float]]:
    """The samples of an expression now.

    Raises:
        OSError: Prometheus doesn't answer, or refuses the expression.
    """
    parameters = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{url}/api/v1/query?{parameters}", timeout=5) as answer:
        found = json.load(answer)
    return [(sample["metric"], float(sample["value"][1])) for sample in found["data"]["result"]]
