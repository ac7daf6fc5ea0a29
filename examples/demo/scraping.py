"""A Prometheus configuration for Joulepath's pods, and questions to a Prometheus."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import yaml

__all__ = ["configuration", "query"]


def configuration(kubeconfig: Path, namespace: str, interval: str = "2s") -> str:
    """Scrapes the pods of `namespace` that ask for it by annotation, at their own addresses."""
    pod = "__meta_kubernetes_pod"
    annotation = f"{pod}_annotation_prometheus_io"

    def relabel(target: str, *sources: str, regex: str = "(.+)", replacement: str = "$1") -> dict[str, Any]:
        return {"source_labels": list(sources), "target_label": target, "regex": regex, "replacement": replacement}

    rules = [
        {"source_labels": [f"{annotation}_scrape"], "regex": "true", "action": "keep"},
        {"source_labels": [f"{pod}_phase"], "regex": "Running", "action": "keep"},
        {"source_labels": [f"{pod}_container_init"], "regex": "false", "action": "keep"},
        relabel("__address__", f"{pod}_ip", f"{annotation}_port", regex="(.+);(.+)", replacement="$1:$2"),
        relabel("__metrics_path__", f"{annotation}_path"),
        relabel("component", f"{pod}_label_app_kubernetes_io_component"),
    ]
    job = {
        "job_name": "joulepath",
        "honor_labels": True,  # namespace, pod and job are those of the training, not of the pod that tells of them
        "kubernetes_sd_configs": [
            {"role": "pod", "kubeconfig_file": str(kubeconfig), "namespaces": {"names": [namespace]}}
        ],
        "relabel_configs": rules,
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
