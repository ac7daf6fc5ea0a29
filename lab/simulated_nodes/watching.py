"""What becomes of EnergyPlans and JobPlans, by a watch of each: which phase and which version was there when."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from joulepath_agent.cluster.objects import ApiServer
from joulepath_crds.contract import GROUP, VERSION

__all__ = ["Seen", "Watch"]

_LASTS_S: Final = 3600
_LATE_S: Final = 60.0
_AGAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A version of an object: when it came, and its bytes as JSON."""

    at_s: float
    body: Mapping[str, Any]
    size: int

    @property
    def name(self) -> str:
        """The object's."""
        name: str = self.body["metadata"]["name"]
        return name


class Watch:
    """Versions of the objects of a resource of ours since it began: those that differ in what matters here."""

    def __init__(self, api: ApiServer, plural: str) -> None:
        self._api, self._path = api, ("apis", GROUP, VERSION, plural)
        self._seen: list[Seen] = []
        self._newest: dict[str, Seen] = {}
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        """Ends it, in the background."""
        self._stopped.set()

    @property
    def seen(self) -> tuple[Seen, ...]:
        """Oldest first."""
        return tuple(self._seen)

    def newest(self) -> dict[str, Seen]:
        """By name, as it is now."""
        return dict(self._newest)

    def _watch(self) -> None:
        while not self._stopped.is_set():
            try:
                listed = self._api.list(*self._path, whole=True)
                for body in listed["items"]:
                    self._take(body)
                version = listed["metadata"]["resourceVersion"]
                with self._api.watch(version, _LASTS_S, _LATE_S, *self._path) as watch:
                    for event in watch:
                        self._take(event["object"])
            except (OSError, KeyError):
                self._stopped.wait(_AGAIN_S)

    def _take(self, body: Mapping[str, Any]) -> None:
        seen = Seen(time.monotonic(), body, len(json.dumps(body, separators=(",", ":"))))
        before = self._newest.get(seen.name)
        self._newest[seen.name] = seen
        if before is None or _step(before.body) != _step(body):
            self._seen.append(seen)


def _step(body: Mapping[str, Any]) -> object:
    """What tells a version that is worth keeping from the one before."""
    status, spec = body.get("status") or {}, body["spec"]
    told = status.get("phase"), bool(status.get("conditions")), "topology" in status
    return told, spec.get("hash"), spec.get("activateAt"), spec.get("sparseFrom")
