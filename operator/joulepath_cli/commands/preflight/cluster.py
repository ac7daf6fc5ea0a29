"""Reads a cluster: everything that is asked of the API server is asked here, by GET alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import quote

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
_TIMEOUT_S: Final = 10.0
_PAGE: Final = 250
_OURS: Final = "app.kubernetes.io/part-of=joulepath"
_NOT_FOUND: Final = 404
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
Got = TypeVar("Got")


class _ReadError(Exception):
    """The API server answers, but not with what was asked for."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"the API server answers {status} {reason}")
        self.status = status


class _Api:
    """An API server, as far as GET goes."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def get(self, *names: str, **query: object) -> dict[str, Any]:
        """An object as JSON, by its path.

        Raises:
            ConnectionError: The API server can't be reached.
        """
        from kubernetes import client
        from urllib3.exceptions import HTTPError

        api, path = self._connection, "".join(f"/{quote(name, safe='')}" for name in names)
        request = api.param_serialize(
            "GET",
            path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"],
        )
        try:
            response = api.call_api(*request, _request_timeout=_TIMEOUT_S)
            response.read()
            found = api.response_deserialize(response, {"200": "object"}).data
        except client.ApiException as error:
            if error.status == _UNAUTHORIZED:
                raise ConnectionError(
                    "the cluster doesn't know you (401); log in again, see kubectl auth whoami."
                ) from None
            raise _ReadError(error.status, error.reason) from None
        except HTTPError as error:
            raise ConnectionError(f"the cluster doesn't answer ({error}); see kubectl cluster-info.") from None
        if not isinstance(found, dict):
            raise _ReadError(200, "with something that is no object")
        return found

    def items(self, *names: str, **query: object) -> Iterator[dict[str, Any]]:
        """All objects of a list, page by page."""
        following: dict[str, object] = {}
        while True:
            page = self.get(*names, limit=_PAGE, **query, **following)
            yield from page.get("items") or ()
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return
            following = {"continue": token}


def read(namespace: str) -> Facts:
    """What the API server tells, of the kubeconfig's cluster or, in a pod without one, of the pod's own.

    Raises:
        ConnectionError: No cluster is configured, or it doesn't answer.
    """
    with _connected() as api:
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


@contextmanager
def _connected() -> Iterator[_Api]:
    try:
        from kubernetes import client, config
    except ImportError:
        raise ConnectionError("the Kubernetes client is missing; pip install kubernetes.") from None
    settings = client.Configuration()
    try:
        config.load_kube_config(client_configuration=settings)
    except config.ConfigException as error:
        try:
            config.load_incluster_config(client_configuration=settings)
        except config.ConfigException:
            raise ConnectionError(f"no cluster is configured ({error}); set KUBECONFIG.") from None
    settings.retries = False
    with client.ApiClient(settings) as connection:
        yield _Api(connection)


def _attempt(right: str, ask: Callable[[], Got]) -> Got | Unread:
    """What is asked for, or why it isn't told."""
    try:
        return ask()
    except _ReadError as error:
        if error.status == _FORBIDDEN:
            return Unread(
                f"you may not {right}", "Ask as somebody who may; kubectl auth can-i --list tells what you may."
            )
        return Unread(f"{error} to {right}", "Try again; kubectl get --raw tells more.")


def _kinds(api: _Api, group: str) -> frozenset[str]:
    try:
        versions = [one["version"] for one in api.get("apis", group).get("versions") or ()]
    except _ReadError as error:
        if error.status == _NOT_FOUND:
            return frozenset()
        raise
    return frozenset(
        f"{version}/{one['name']}"
        for version in versions
        for one in api.get("apis", group, version).get("resources") or ()
    )


def _slices(api: _Api, kinds: frozenset[str] | Unread) -> tuple[facts.Slice, ...]:
    served = () if isinstance(kinds, Unread) else sorted(one for one in kinds if one.endswith("/resourceslices"))
    if not served:
        return ()
    found = map(facts.resource_slice, api.items("apis", "resource.k8s.io", *served[0].split("/")))
    return tuple(one for one in found if one is not None)


def _reports(api: _Api, kinds: frozenset[str] | Unread) -> tuple[facts.Report, ...]:
    if isinstance(kinds, Unread) or "v1alpha1/nodereports" not in kinds:
        return ()
    return tuple(map(facts.report, api.items("apis", "joulepath.dev", "v1alpha1", "nodereports")))


def _labels(body: dict[str, Any]) -> tuple[str, dict[str, str]]:
    return body["metadata"]["name"], body["metadata"].get("labels") or {}
