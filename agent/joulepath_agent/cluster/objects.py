"""Objects of the API server as plain JSON.

The client's own models aren't used: those of one API (`CoreV1Api`) pull in nearly all others, 21 MiB of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

from kubernetes import client

from joulepath_agent.cluster.failures import failures_as_oserror

__all__ = ["read_core", "read_metadata"]

_METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


def read_core(api: client.ApiClient, *names: str, timeout_s: tuple[float, float]) -> Mapping[str, Any]:
    """An object of the core API, by what follows `/api/v1/` in its path: `CustomObjectsApi` knows the other groups.

    Raises:
        FileNotFoundError: There is none.
        OSError: The API server doesn't answer, or forbids it.
    """
    return _read(api, ("api", "v1", *names), "application/json", timeout_s)


def read_metadata(api: client.ApiClient, *names: str, timeout_s: tuple[float, float]) -> Mapping[str, Any]:
    """An object of another API, by what follows `/apis/` in its path: of all of it, its metadata alone.

    Raises:
        FileNotFoundError: There is none.
        OSError: The API server doesn't answer, or forbids it.
    """
    return _read(api, ("apis", *names), _METADATA, timeout_s)


def _read(
    api: client.ApiClient, names: Iterable[str], accepted: str, timeout_s: tuple[float, float]
) -> Mapping[str, Any]:
    path = "".join(f"/{quote(name, safe='')}" for name in names)
    request = api.param_serialize("GET", path, header_params={"Accept": accepted}, auth_settings=["BearerToken"])
    with failures_as_oserror():
        response = api.call_api(*request, _request_timeout=timeout_s)
        response.read()
        found: Mapping[str, Any] = api.response_deserialize(response, {"200": "object"}).data
    return found
