"""Who else writes the EnergyPolicy: Argo CD and Flux hold it to what stands in Git, and may undo a pause at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from joulepath_crds import POLICY_NAME

__all__ = ["warning"]

_ARGO_TRACKING: Final = "argocd.argoproj.io/tracking-id"
_ARGO_INSTANCE: Final = "argocd.argoproj.io/instance"
_INSTANCE: Final = "app.kubernetes.io/instance"
"""What Argo CD may track by; others write it as well, so that it only tells which application it is."""
_FLUX: Final = {
    "kustomization": ("kustomize.toolkit.fluxcd.io", "kustomize-controller"),
    "helmrelease": ("helm.toolkit.fluxcd.io", "helm-controller"),
}
"""Kinds of Flux, in the words of its command: whose labels and whose field manager are theirs."""


def warning(policy: Mapping[str, Any], paused: bool) -> str:
    """Of a policy that was just written: who may undo that, and the remedy; empty where nobody is known to."""
    metadata = policy.get("metadata") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    managers = {str(one.get("manager", "")) for one in metadata.get("managedFields") or ()}
    who, stop = _argo(labels, annotations, managers) or _flux(labels, managers) or ("", "")
    if not who:
        return ""
    value = str(paused).lower()
    return (
        f"EnergyPolicy {POLICY_NAME} is applied by {who}, which undoes this, perhaps at once, where its manifest says "
        f"otherwise of spec.paused. Write paused: {value} there (in Git) as well, or keep it from that: {stop}"
    )


def _argo(labels: Mapping[str, str], annotations: Mapping[str, str], managers: Iterable[str]) -> tuple[str, str] | None:
    tracked = annotations.get(_ARGO_TRACKING, "").partition(":")[0] or labels.get(_ARGO_INSTANCE, "")
    if not tracked and not any(one.startswith("argocd-") for one in managers):
        return None
    app = tracked or labels.get(_INSTANCE, "APPLICATION")
    return f"Argo CD (application {app})", f"argocd app set {app} --sync-policy none"


def _flux(labels: Mapping[str, str], managers: Iterable[str]) -> tuple[str, str] | None:
    for kind, (prefix, manager) in _FLUX.items():
        name, namespace = labels.get(f"{prefix}/name", ""), labels.get(f"{prefix}/namespace", "")
        if name or manager in managers:
            name, namespace = name or "NAME", namespace or "NAMESPACE"
            return f"Flux ({kind} {namespace}/{name})", f"flux suspend {kind} {name} --namespace {namespace}"
    return None
