"""The API server: its objects as plain JSON, by their paths, and its failures as the errors of files.

By urllib3 alone: the few requests that an agent makes need nothing of the Kubernetes client, which takes 10 MiB.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import urllib3

from joulepath_agent.cluster.failures import BusyError, TooLargeError

__all__ = ["ApiServer", "Watch"]

_JSON: Final = "application/json"
_METADATA: Final = "PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_LIST: Final = "PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_MERGE: Final = "application/merge-patch+json"
_TIMEOUT_S: Final = (3.05, 10.0)
"""To connect; and without a byte."""
_BOOKMARKS_S: Final = 60.0
"""Between two: the API server's, which no option of its changes."""
_WRITTEN_S: Final = 8
"""In which a write is done or given up by the API server itself: who waits for longer would send it again while the
first is under way, and an API server that is late has twice as much to do."""
_BUSY: Final = frozenset({429, 503})
_TRIES: Final = urllib3.Retry(2, read=False, redirect=False, respect_retry_after_header=False)
"""Of a connection; who reads from a black hole isn't to do so twice, nor wait for as long as an answer says."""
_NAME: Final = "joulepath-agent"
_CONNECTIONS: Final = 5
_MOST_BYTES: Final = 4 * 2**20
"""Of an answer, and of an event of a watch: whoever may write objects must not make an agent run out of memory."""
_PART_BYTES: Final = 65536
_LONGEST_SENTENCE: Final = 1000
_LONGEST_ANSWER: Final = 300


class ApiServer:
    """A way to it. Names are those of a path, one after another: `api`, `v1`, `nodes`, NAME."""

    def __init__(self, url: str, token: Callable[[], str] = lambda: "", **security: Any) -> None:
        """`token` is asked for at each request, none is said where it is empty; `security` is urllib3's, for TLS."""
        self.url, self._token = url, token
        self._pool = urllib3.PoolManager(maxsize=_CONNECTIONS, retries=_TRIES, **security)

    @classmethod
    def connect(cls, url: str, credentials: Path) -> ApiServer:
        """That of the cluster that this pod is in, by its service account; or at another URL. By http, unnamed.

        Raises:
            OSError: There is none, or no credentials for it.
        """
        if not url:
            host, port = (os.environ.get(f"KUBERNETES_SERVICE_{what}", "") for what in ("HOST", "PORT"))
            if not host or not port:
                raise OSError("this is no pod of a cluster (KUBERNETES_SERVICE_HOST isn't set): set --api-server")
            url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        if not url.startswith("https://"):
            return cls(url)
        token, authority = partial(_token, credentials / "token"), credentials / "ca.crt"
        token()
        authority.read_text()
        return cls(url, token, ca_certs=str(authority))

    def read(self, *names: str, timeout_s: tuple[float, float] = _TIMEOUT_S) -> Mapping[str, Any]:
        """An object.

        Raises:
            FileNotFoundError: There is none.
            OSError: The API server doesn't answer, or forbids it.
        """
        return self._ask("GET", names, timeout_s)

    def read_metadata(self, *names: str, timeout_s: tuple[float, float] = _TIMEOUT_S) -> Mapping[str, Any]:
        """Of all of an object, its metadata alone; see `read`."""
        return self._ask("GET", names, timeout_s, accept=f"{_JSON};as={_METADATA}")

    def list(self, *names: str, whole: bool, most_bytes: int = _MOST_BYTES, **only: str) -> Mapping[str, Any]:
        """The objects of a collection, whole or their metadata alone; `only` are its parameters, as `labelSelector`.

        Raises:
            TooLargeError: They have more bytes.
            OSError: See `read`.
        """
        accept = _JSON if whole else f"{_JSON};as={_METADATA_LIST}"
        listed = self._ask("GET", names, _TIMEOUT_S, accept=accept, most_bytes=most_bytes, fields=only)
        return {**listed, "items": listed["items"] or []}  # none at all are null, of metadata

    def create(self, body: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
        """Makes an object in a collection, and gives it as it was made; see `read`."""
        return self._ask("POST", names, _TIMEOUT_S, body=body, kind=_JSON)

    def patch(self, body: Mapping[str, Any], *names: str) -> None:
        """Merges that into an object; see `read`."""
        self._ask("PATCH", names, _TIMEOUT_S, body=body, kind=_MERGE)

    @contextmanager
    def watch(
        self,
        version: str,
        lasts_s: int,
        late_s: float,
        *names: str,
        labels: str = "",
        bookmarks: bool = False,
        whole: bool = True,
    ) -> Iterator[Watch]:
        """A collection since a version, for so long; it may end so much later, or sooner. See `list`.

        With `bookmarks` it says each minute that it lives, and is taken for dead where it is late with that.
        """
        asked = {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(lasts_s)}
        asked |= {"labelSelector": labels} if labels else {}
        asked |= {"allowWatchBookmarks": "true"} if bookmarks else {}
        timeout_s = _TIMEOUT_S[0], (min(lasts_s, _BOOKMARKS_S) if bookmarks else lasts_s) + late_s
        accept = _JSON if whole else f"{_JSON};as={_METADATA}"
        with self._answer("GET", names, timeout_s, accept=accept, fields=asked) as answer:
            yield Watch(answer)

    def _ask(
        self,
        method: str,
        names: tuple[str, ...],
        timeout_s: tuple[float, float],
        *,
        accept: str = _JSON,
        kind: str = "",
        body: Mapping[str, Any] | None = None,
        most_bytes: int = _MOST_BYTES,
        **sent: Any,
    ) -> Mapping[str, Any]:
        sent |= {} if body is None else {"body": json.dumps(body)}
        with self._answer(method, names, timeout_s, accept=accept, kind=kind, **sent) as answer:
            said = answer.read(most_bytes + 1)
            if len(said) > most_bytes:
                raise TooLargeError(f"the answer to {method} {'/'.join(names)} has more than {most_bytes} bytes")
            found: Mapping[str, Any] = json.loads(said)
            return found

    @contextmanager
    def _answer(
        self,
        method: str,
        names: tuple[str, ...],
        timeout_s: tuple[float, float],
        *,
        accept: str,
        kind: str = "",
        **request: Any,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        path = "".join(f"/{quote(name, safe='')}" for name in names)
        if method != "GET":
            path += f"?timeout={_WRITTEN_S}s"
        headers = {"Accept": accept, "User-Agent": _NAME}
        if kind:
            headers["Content-Type"] = kind
        if token := self._token():
            headers["Authorization"] = f"Bearer {token}"
        connect_s, read_s = timeout_s
        limit = urllib3.Timeout(connect=connect_s, read=read_s)
        try:
            answer = self._pool.request(
                method, self.url + path, headers=headers, timeout=limit, preload_content=False, **request
            )
            try:
                if answer.status >= 300:
                    raise _error(answer)
                yield answer
            finally:
                answer.close()
                answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise OSError(str(error)) from None
        except json.JSONDecodeError as error:
            raise OSError(f"the answer to {method} {path} is no JSON: {error}") from None


class Watch:
    """A collection that is watched."""

    def __init__(self, answer: urllib3.BaseHTTPResponse) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Its events.

        Raises:
            TooLargeError: One is too large.
            OSError: It has been ended, or has broken off.
        """
        rest = b""
        for part in self._answer.stream(_PART_BYTES):
            *lines, rest = (rest + part).split(b"\n")
            yield from map(json.loads, lines)
            if len(rest) > _MOST_BYTES:
                raise TooLargeError(f"an event of a watch has more than {_MOST_BYTES} bytes")
        if rest:
            yield json.loads(rest)

    def end(self) -> None:
        """Ends it, from any thread."""
        with suppress(RuntimeError, ValueError, OSError):  # it is over already
            self._answer.shutdown()


def _error(answer: urllib3.BaseHTTPResponse) -> OSError:
    said = f"{answer.status} {answer.reason}: {_said(answer.read(_PART_BYTES))}"
    if answer.status in _BUSY:
        wait = answer.headers.get("Retry-After", "")
        return BusyError(said, float(wait) if wait.isdecimal() else 0.0)
    return FileNotFoundError(said) if answer.status == 404 else OSError(said)


def _token(file: Path) -> str:
    """As the kubelet renewed it last. Where it is missing, no object is said to be."""
    try:
        return file.read_text().strip()
    except OSError as error:
        raise OSError(f"the token for the API server can't be read: {error}") from None


def _said(answer: bytes) -> str:
    """The sentence of the Status that the API server answers with: a policy's has the remedy at its end."""
    try:
        return str(json.loads(answer)["message"])[:_LONGEST_SENTENCE]
    except (ValueError, TypeError, KeyError):
        return answer.decode(errors="replace")[:_LONGEST_ANSWER]
