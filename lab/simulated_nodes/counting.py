"""The agent's way to the API server, with its calls and their bytes counted: by verb and resource."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from joulepath_agent.cluster.objects import ApiServer

__all__ = ["Counted", "Traffic"]

_REFUSED: Final = "429"


class Traffic:
    """What many agents have sent and got; threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, call: str, **of: int) -> None:
        """Of a call such as `patch nodereports/status`: how many `calls`, `sent` bytes and `got` bytes more."""
        with self._lock:
            self._counts.update({f"{call} {what}": number for what, number in of.items()})

    def so_far(self) -> dict[str, int]:
        """All counts."""
        with self._lock:
            return dict(self._counts)


class Counted(ApiServer):
    """One node's."""

    def __init__(self, traffic: Traffic, url: str, token: Callable[[], str], authority: str) -> None:
        super().__init__(url, token, ca_certs=authority)
        self._traffic = traffic

    @contextmanager
    def _answer(self, method: str, names: tuple[str, ...], *arguments: Any, **request: Any) -> Iterator[Any]:
        call = f"{_verb(method, names, request)} {_resource(names)}"
        body = request.get("body")
        self._traffic.add(call, calls=1, sent=len(body) if body else 0)
        try:
            with super()._answer(method, names, *arguments, **request) as answer:
                yield _Counting(answer, lambda size: self._traffic.add(call, got=size))
        except OSError as error:
            self._traffic.add(call, **{"refused" if str(error).startswith(_REFUSED) else "failed": 1})
            raise


class _Counting:
    """An answer whose bytes are counted as they are read."""

    def __init__(self, answer: Any, count: Callable[[int], object]) -> None:
        self._answer, self._count = answer, count

    def read(self, most: int) -> bytes:
        found: bytes = self._answer.read(most)
        self._count(len(found))
        return found

    def shutdown(self) -> None:
        self._answer.shutdown()

    def stream(self, most: int) -> Iterator[bytes]:
        for part in self._answer.stream(most):
            self._count(len(part))
            yield part


def _verb(method: str, names: tuple[str, ...], request: Any) -> str:
    if method != "GET":
        return {"POST": "create", "PATCH": "patch"}[method]
    return "watch" if "watch" in (request.get("fields") or {}) else "list" if names[-1].endswith("s") else "get"


def _resource(names: tuple[str, ...]) -> str:
    """Its plural, from a path: `nodereports/status` of apis, GROUP, VERSION, nodereports, NAME, status."""
    rest = names[2:] if names[0] == "api" else names[3:]
    rest = rest[2:] if rest[0] == "namespaces" and len(rest) > 2 else rest
    return "/".join((rest[0], *rest[2:]))
