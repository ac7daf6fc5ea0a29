"""The API server of the kubeconfig's cluster, or of the pod's own: its objects as JSON, by their paths."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

__all__ = ["CONFLICT", "FORBIDDEN", "NOT_FOUND", "TABLE", "AnswerError", "ApiServer", "connected"]

NOT_FOUND: Final = 404
FORBIDDEN: Final = 403
CONFLICT: Final = 409
TABLE: Final = "application/json;as=Table;v=v1;g=meta.k8s.io"
"""Of a list, what `kubectl get` shows of it."""
_JSON: Final = "application/json"
_MERGE: Final = "application/merge-patch+json"
_UNAUTHORIZED: Final = 401
_TIMEOUT_S: Final = 10.0
_PAGE: Final = 250


class AnswerError(Exception):
    """The API server answers, but not with what was asked for; `said` is its own sentence, if it has one."""

    def __init__(self, status: int, reason: str, said: str = "") -> None:
        super().__init__(f"the API server answers {status} {reason}")
        self.status, self.said = status, said


class ApiServer:
    """Names are those of a path, one after another.

    What can't be had raises an AnswerError, and an API server that can't be reached a ConnectionError.
    """

    def __init__(self, connection: Any) -> None:
        """`connection` is an ApiClient of the Kubernetes client."""
        self._connection = connection

    def get(self, *names: str, accept: str = _JSON, **query: object) -> dict[str, Any]:
        """An object, or a list."""
        return self._ask("GET", names, {"Accept": accept}, query)

    def create(self, body: Mapping[str, Any], *names: str) -> dict[str, Any]:
        """Makes an object in a collection."""
        return self._ask("POST", names, {"Accept": _JSON, "Content-Type": _JSON}, {}, body)

    def merge(self, body: Mapping[str, Any], *names: str) -> dict[str, Any]:
        """Merges that into an object."""
        return self._ask("PATCH", names, {"Accept": _JSON, "Content-Type": _MERGE}, {}, body)

    def pages(self, *names: str, accept: str = _JSON, **query: object) -> Iterator[dict[str, Any]]:
        """All of a list."""
        following: dict[str, object] = {}
        while True:
            page = self.get(*names, accept=accept, limit=_PAGE, **query, **following)
            yield page
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return
            following = {"continue": token}

    def items(self, *names: str, **query: object) -> Iterator[dict[str, Any]]:
        """All objects of a list."""
        for page in self.pages(*names, accept=_JSON, **query):
            yield from page.get("items") or ()

    def _ask(
        self,
        method: str,
        names: tuple[str, ...],
        headers: Mapping[str, str],
        query: Mapping[str, object],
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        from kubernetes import client
        from urllib3.exceptions import HTTPError

        api, path = self._connection, "".join(f"/{quote(name, safe='')}" for name in names)
        request = api.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=dict(headers),
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = api.call_api(*request, _request_timeout=_TIMEOUT_S)
            response.read()
            found = api.response_deserialize(response, {"200": "object", "201": "object"}).data
        except client.ApiException as error:
            if error.status == _UNAUTHORIZED:
                raise ConnectionError(
                    "the cluster doesn't know you (401); log in again, see kubectl auth whoami."
                ) from None
            raise AnswerError(error.status, error.reason, _said(error.body)) from None
        except HTTPError as error:
            raise ConnectionError(f"the cluster doesn't answer ({error}); see kubectl cluster-info.") from None
        if not isinstance(found, dict):
            raise AnswerError(200, "with something that is no object")
        return found


@contextmanager
def connected() -> Iterator[ApiServer]:
    """The API server, for as long as it is needed.

    Raises:
        ConnectionError: No cluster is configured, or the Kubernetes client is missing.
    """
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
        yield ApiServer(connection)


def _said(answer: Any) -> str:
    try:
        return str(json.loads(answer)["message"])
    except (ValueError, TypeError, KeyError):
        return ""
