"""Nodes of clusters as their API servers tell them, and an API server over HTTP that serves such a cluster.

`OURS` is recorded of the test cluster. The others are written by hand, in the forms that their providers' nodes have;
their versions are examples, which nobody has recorded together:

- GKE: nodes of 1.30 have Container-Optimized OS 113 (https://github.com/cloudpilot-ai/karpenter-provider-gcp/pull/14,
  https://cloud.google.com/container-optimized-os/docs/release-notes/m113), and labels of Google's own for GPUs
  (https://cloud.google.com/kubernetes-engine/docs/how-to/gpus).
- EKS: how Amazon Linux 2023 writes itself stands in https://github.com/awslabs/amazon-eks-ami/pull/1212, which kernel
  comes with which Kubernetes in https://github.com/awslabs/amazon-eks-ami/releases/tag/v20260728 (6.1 up to 1.32).
- OpenShift 4.17: CRI-O 1.30 on RHEL 9.4
  (https://docs.redhat.com/en/documentation/openshift_container_platform/4.17/html/release_notes).
- kind: Debian in a container, with the kernel of the host (https://github.com/kubernetes-sigs/kind/releases).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.json_server import JsonHandler, serving

__all__ = ["EKS", "GKE", "KIND", "OPENSHIFT", "OURS", "ApiDouble", "api_double", "kubeconfig", "node"]

Body = dict[str, Any]
PRESENT: Final = {"nvidia.com/gpu.present": "true"}


def node(
    name: str,
    runtime: str,
    kernel: str = "6.8.0-60-generic",
    image: str = "Ubuntu 24.04.2 LTS",
    resources: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    platform: str = "linux/amd64",
) -> Body:
    """A Node with 8 GPUs, unless other resources are given."""
    os, architecture = platform.split("/")
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/os": os, **(PRESENT if labels is None else labels)}},
        "status": {
            "allocatable": {
                "cpu": "96",
                "memory": "1Ti",
                **({"nvidia.com/gpu": "8"} if resources is None else resources),
            },
            "nodeInfo": {
                "architecture": architecture,
                "containerRuntimeVersion": runtime,
                "kernelVersion": kernel,
                "kubeletVersion": "v1.33.1",
                "operatingSystem": os,
                "osImage": image,
            },
        },
    }


GKE: Final = node(
    "gke-train-a100-1c2d3e4f-x7kq",
    "containerd://1.7.24",
    "6.1.112+",
    "Container-Optimized OS from Google",
    labels={"cloud.google.com/gke-accelerator": "nvidia-tesla-a100", "cloud.google.com/gke-nodepool": "a100"},
)
EKS: Final = node(
    "ip-10-0-31-7.eu-west-1.compute.internal",
    "containerd://2.1.4",
    "6.1.147-172.266.amzn2023.x86_64",
    "Amazon Linux 2023.8.20250818",
)
OPENSHIFT: Final = node(
    "worker-3.ocp.example",
    "cri-o://1.30.6-2.rhaos4.17.gitf8ae0d2.el9",
    "5.14.0-427.42.1.el9_4.x86_64",
    "Red Hat Enterprise Linux CoreOS 417.94.202411070820-0",
)
KIND: Final = node(
    "kind-control-plane", "containerd://2.1.3", "6.8.0-60-generic", "Debian GNU/Linux 12 (bookworm)", {}, labels={}
)
OURS: Final[Body] = {
    "metadata": {"name": "node0", "labels": {"kubernetes.io/os": "linux", **PRESENT}},
    "status": {
        "allocatable": {"cpu": "2", "memory": "24581684Ki", "nvidia.com/gpu": "4", "pods": "110"},
        "nodeInfo": {
            "architecture": "amd64",
            "containerRuntimeVersion": "containerd://2.4.2+unknown",
            "kernelVersion": "6.18.44-fc-v669",
            "kubeProxyVersion": "",
            "kubeletVersion": "v1.37.2",
            "operatingSystem": "linux",
            "osImage": "Debian GNU/Linux 12 (bookworm)",
        },
    },
}


def kubeconfig(folder: Path, server: str) -> Path:
    """One whose current cluster that is."""
    settings = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(settings))
    return path


class ApiDouble:
    """What an API server serves, and has been asked."""

    def __init__(self) -> None:
        self.nodes: list[Body] = [OURS]
        self.lists: dict[str, list[Body]] = {
            "/api/v1/namespaces": [{"metadata": {"name": "joulepath-system"}}],
            "/api/v1/namespaces/joulepath-system/pods": [],
        }
        """Items by path."""
        self.kinds: dict[str, dict[str, list[str]]] = {"kubeflow.org": {"v1": ["pytorchjobs"]}}
        """Plurals by API group and version."""
        self.forbidden: set[str] = set()
        """Paths that are answered with 403."""
        self.status = 200
        """Another one is the answer to everything."""
        self.asked: list[tuple[str, str]] = []
        """Method and path of all requests."""
        self.address = ""

    def answer(self, path: str, query: Mapping[str, str]) -> tuple[int, Body]:
        """Status and body."""
        if self.status != 200 or path in self.forbidden:
            return (403 if path in self.forbidden else self.status), {"kind": "Status"}
        if path == "/version":
            return 200, {"major": "1", "minor": "33", "gitVersion": "v1.33.1"}
        match path.removeprefix("/apis/").split("/"):
            case [group] if group in self.kinds:
                return 200, {"versions": [{"version": version} for version in self.kinds[group]]}
            case [group, version] if version in self.kinds.get(group, ()):
                return 200, {"resources": [{"name": name} for name in self.kinds[group][version]]}
        items = self.nodes if path == "/api/v1/nodes" else self.lists.get(path)
        if items is None:
            return 404, {"kind": "Status"}
        begin, limit = int(query.get("continue", 0)), int(query["limit"])
        following = str(begin + limit) if begin + limit < len(items) else ""
        return 200, {"items": items[begin : begin + limit], "metadata": {"continue": following}}


@contextmanager
def api_double() -> Iterator[ApiDouble]:
    """Runs one."""
    double = ApiDouble()

    class Handler(JsonHandler, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            double.asked.append((self.command, asked.path))
            query = {name: values[0] for name, values in parse_qs(asked.query).items()}
            self.answer(*double.answer(asked.path, query))

    with serving(Handler) as double.address:
        yield double
