"""Reads a cluster: everything that is asked of the API server is asked here, by GET alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from joulepath_cli.apiserver import FORBIDDEN, NOT_FOUND, AnswerError, ApiServer, connected
from joulepath_cli.commands.preflight import facts
from joulepath_cli.commands.preflight.facts import Facts, Unread
from joulepath_crds import JOB_NAMES

__all__ = ["GROUPS", "read"]

GROUPS: Final = (
    *(kind.group for kind in JOB_NAMES),
    "monitoring.coreos.com",
    "joulepath.dev",
    "resource.k8s.io",
    "security.openshift.io",
)
"""API groups that are asked for; who may log in may ask that (`system:discovery`)."""
_OURS: Final = "app.kubernetes.io/part-of=joulepath"
Got = TypeVar("Got")


def read(namespace: str) -> Facts:
    """What the API server tells, of the kubeconfig's cluster or, in a pod without one, of the pod's own.

    Raises:
        ConnectionError: No cluster is configured, or it doesn't answer.
    """
    with connected() as api:
        kinds = {group: _attempt(f"get /apis/{group}", partial(_kinds, api, group)) for group in GROUPS}
        of_namespace = ("api", "v1", "namespaces", namespace)
        return Facts(
            namespace=namespace,
            version=_attempt("get /version", lambda: str(api.get("version").get("gitVersion"))),
            kinds=kinds,
            nodes=_attempt("list nodes", lambda: tuple(map(facts.node, api.items("api", "v1", "nodes")))),
            slices=_attempt("list resourceslices.resource.k8s.io", partial(_slices, api, kinds["resource.k8s.io"])),
            namespaces=_attempt("list namespaces", lambda: dict(map(_labels, api.items("api", "v1", "namespaces")))),
            pods=_attempt(
                f"list pods in namespace {namespace}",
                lambda: tuple(map(facts.pod, api.items(*of_namespace, "pods", labelSelector=_OURS))),
            ),
            reports=_attempt("list nodereports.joulepath.dev", partial(_reports, api, kinds["joulepath.dev"])),
        )


def _attempt(right: str, ask: Callable[[], Got]) -> Got | Unread:
    """What is asked for, or why it isn't told."""
    try:
        return ask()
    except AnswerError as error:
        if error.status == FORBIDDEN:
            return Unread(
                f"you may not {right}", "Ask as somebody who may; kubectl auth can-i --list tells what you may."
            )
        return Unread(f"{error} to {right}", "Try again; kubectl get --raw tells more.")


def _kinds(api: ApiServer, group: str) -> frozenset[str]:
    try:
        versions = [one["version"] for one in api.get("apis", group).get("versions") or ()]
    except AnswerError as error:
        if error.status == NOT_FOUND:
            return frozenset()
        raise
    return frozenset(
        f"{version}/{one['name']}"
        for version in versions
        for one in api.get("apis", group, version).get("resources") or ()
    )


def _slices(api: ApiServer, kinds: frozenset[str] | Unread) -> tuple[facts.Slice, ...]:
    served = () if isinstance(kinds, Unread) else sorted(one for one in kinds if one.endswith("/resourceslices"))
    if not served:
        return ()
    found = map(facts.resource_slice, api.items("apis", "resource.k8s.io", *served[0].split("/")))
    return tuple(one for one in found if one is not None)


def _reports(api: ApiServer, kinds: frozenset[str] | Unread) -> tuple[facts.Report, ...]:
    if isinstance(kinds, Unread) or "v1alpha1/nodereports" not in kinds:
        return ()
    return tuple(map(facts.report, api.items("apis", "joulepath.dev", "v1alpha1", "nodereports")))


def _labels(body: dict[str, Any]) -> tuple[str, dict[str, str]]:
    return body["metadata"]["name"], body["metadata"].get("labels") or {}
