"""The EnergyPolicy as this agent hears of it: a list, then a watch, which it has whether or not there are ranks here.

Each answer and each sign of life of the watch is news, also where nothing has changed: a pause would have been in it.

That there is no such kind is news only if it is said twice, half a minute apart. A definition that has just been made
is unknown until its names are accepted, and to other API servers for longer; a policy that pauses may be there soon
after, or all the time, where something else has answered for an API server that is down. Who has just begun tells no
plan before that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from joulepath_agent.cluster.objects import ApiServer
from joulepath_crds import POLICY_NAME, EnergyPolicySpec, read_policy

__all__ = ["PolicyWatch"]

_SIGNS_S: Final = 60.0
"""Between two signs of life of a watch, which has a dead one noticed; a short watch ends before there is one."""
_NO_KIND_S: Final = 30.0
"""How long to wait where the cluster doesn't know the kind: six times as long as an API server of several lets pass
before it takes a definition for established."""
_NONE: Final = EnergyPolicySpec()


class PolicyWatch:
    """Tells of it."""

    def __init__(
        self, api: ApiServer, group: tuple[str, ...], lasts_s: float, late_s: float, stop: threading.Event
    ) -> None:
        """`group` is the beginning of the kind's path; a watch lasts for so long, or twice as long where it gives signs
        of life meanwhile, and is no later than that."""
        self._api, self._path, self._late_s, self._stop = api, (*group, "energypolicies"), late_s, stop
        gives_signs = lasts_s > _SIGNS_S + late_s
        self._lasts_s = max(1, int(2 * lasts_s if gives_signs else lasts_s))
        self._known, self._unknown_kind = _NONE, False

    def hear(self, tell: Callable[[EnergyPolicySpec], None]) -> None:
        """Tells the policy as it is now and as it changes, until the end of one watch.

        Raises:
            OSError: The API server doesn't answer, or forbids it; nothing is known of a policy then.
        """
        is_again, self._unknown_kind = self._unknown_kind, False
        try:
            listed = self._api.list(*self._path, whole=True)
        except FileNotFoundError:
            if self._known != _NONE:  # that takes back nothing that was said
                raise
            if is_again:
                tell(_NONE)
            self._unknown_kind = True
            self._stop.wait(min(_NO_KIND_S, self._lasts_s))
            return
        self._known = next(map(read_policy, filter(_holds, listed["items"])), _NONE)
        tell(self._known)
        version = listed["metadata"]["resourceVersion"]
        with self._api.watch(version, self._lasts_s, self._late_s, *self._path, bookmarks=True) as watch:
            for event in watch:
                if self._stop.is_set() or event["type"] == "ERROR":
                    return
                if event["type"] != "BOOKMARK" and _holds(event["object"]):
                    self._known = _NONE if event["type"] == "DELETED" else read_policy(event["object"])
                tell(self._known)


def _holds(item: Mapping[str, Any]) -> bool:
    return bool(item["metadata"]["name"] == POLICY_NAME)
