"""What a cluster has besides Kubernetes: cluster DNS and the Kubeflow training operator."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Protocol

import yaml

from .binaries import operator_manifests
from .commands import CommandError
from .layout import run_folder

__all__ = ["apply", "wait"]


_FILES: Final = Path(__file__).parent / "files"


class _Kubectl(Protocol):
    def __call__(self, *arguments: str | Path, stdin: str | None = None) -> str: ...


def apply(kubectl: _Kubectl) -> None:
    """Apply both; they are not ready yet."""
    kubectl("apply", "--server-side", "-f", _FILES / "coredns.yaml")
    try:
        kubectl("get", "--namespace", "kubeflow", "deployment/training-operator")
    except CommandError:  # applied again, its Secret would lose the certificate that the operator has put there
        kubectl("apply", "--server-side", "-k", _overlay())


def _overlay() -> Path:
    folder = run_folder() / "training-operator"
    folder.mkdir(exist_ok=True)
    base = os.path.relpath(operator_manifests() / "overlays" / "standalone", folder)  # kustomize wants it relative
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": [base]}
    patches = (_FILES / "training-operator.yaml").read_text()
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(head) + patches)
    return folder


def wait(kubectl: _Kubectl) -> None:
    """Wait until both serve."""
    for namespace, name in (("kube-system", "coredns"), ("kubeflow", "training-operator")):
        kubectl("rollout", "status", "--namespace", namespace, f"deployment/{name}", "--timeout=120s")
