"""What of a namespace decides whether the webhook gives its pods the trainer: its labels, and whether that is stopped.

It is stopped where the init container that comes with the trainer has kept a pod from starting, or where the API server
has refused a pod, which may be for what comes with it. One namespace at a
time: pods are their makers' word, so nobody should stop another's; and what is amiss with a node or an image shows in
each namespace that has to do with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Final

__all__ = ["LONGEST_PAUSE_S", "Admission", "Denial", "Stop", "read_stops"]

LONGEST_PAUSE_S: Final = 86400
_LATEST: Final = "9000-01-01T00:00:00Z"
"""People may write any time down, and sums are made of it."""
_HEARD: Final = timedelta(seconds=10)
"""When the webhooks have heard that one is over, at the latest."""


@dataclass(frozen=True, slots=True)
class Denial:
    """The API server has refused a pod of a job, `at` this time for the last time, as whoever made it tells."""

    job: str
    at: str
    why: str
    uid: str = ""
    """Of that job."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Injection is stopped, or was. Times are RFC 3339, in UTC."""

    since: str
    until: str
    """From then on one pod may try."""
    pause_s: int
    """How long it was until then; the next time it is twice as long."""
    why: str
    """Which pod failed, where and how."""
    node: str = ""
    """Where, if no agent was ready there: it is the agent's pod that puts the trainer's files on a node."""
    over_at: str = ""
    """When a pod had passed; empty until then."""
    tried_from: str = ""
    """The first `until` since a pod has failed; empty where that is the one."""
    denied: bool = False
    """Whether a pod was refused, be it for any of what is added: then they get nothing of it."""

    @property
    def holds(self) -> bool:
        return not self.over_at

    @property
    def first_try(self) -> str:
        """Pods that have our init container and are no older were let try."""
        return self.tried_from or self.until

    def covers(self, created_at: str, starts_first: bool) -> bool:
        """Whether a pod of that time may have been left without the trainer by it; `starts_first` as in `hinders`."""
        if created_at < self.since or not self.hinders(starts_first):
            return False
        return self.holds or datetime.fromisoformat(created_at) <= datetime.fromisoformat(self.over_at) + _HEARD

    def hinders(self, starts_first: bool) -> bool:
        """Whether it is for pods that get an init container, or don't, too."""
        return starts_first or self.denied

    def written(self) -> str:
        """As it stands in the ConfigMap, under the namespace's name."""
        return json.dumps(asdict(self), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Admission:
    """One namespace."""

    namespace: str
    level: str = "privileged"
    """Of Pod Security, as it is enforced there."""
    labelled: bool = True
    """Whether the webhook is asked about its pods."""
    labelled_at: str | None = None
    """Since when at the latest, in RFC 3339, as far as the API server tells."""
    stop: Stop | None = None


def read_stops(written: Mapping[str, str]) -> dict[str, Stop]:
    """Those of a ConfigMap, by namespace; what can't be read is none."""
    found = {}
    for namespace, text in written.items():
        with suppress(ValueError, TypeError, RecursionError):
            found[namespace] = _read(text)
    return found


def _read(text: str) -> Stop:
    stop = Stop(**json.loads(text))
    for time in filter(None, (stop.since, stop.until, stop.over_at, stop.tried_from)):
        if datetime.fromisoformat(time).tzinfo is None:
            raise ValueError(f"{time} names no time zone")
    texts = all(isinstance(one, str) for one in (stop.why, stop.node))
    if not (texts and isinstance(stop.pause_s, int) and isinstance(stop.denied, bool) and stop.since and stop.until):
        raise TypeError("not as it is written")
    return replace(
        stop,
        since=min(stop.since, _LATEST),
        until=min(stop.until, _LATEST),
        over_at=min(stop.over_at, _LATEST),
        tried_from=min(stop.tried_from, _LATEST),
        pause_s=max(1, min(stop.pause_s, LONGEST_PAUSE_S)),
    )
