"""Looks for pods that our init container keeps from starting, and writes down where injection is stopped.

What is written is read anew each time, so that whoever takes a stop out of the ConfigMap by hand has it his way.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from joulepath_operator.control.api import Api, Body
from joulepath_operator.facts.admission import Stop
from joulepath_operator.injection.breaker import failure, next_stop
from joulepath_operator.jobs.kinds import JOB_KINDS

__all__ = ["Stopping"]

log = logging.getLogger(__name__)

_AGAIN_S: Final = 10.0


class Stopping:
    """`known` are the stops as they are now, by namespace, those among them that are over."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.known: Mapping[str, Stop] = {}

    def holding(self) -> list[str]:
        """The namespaces in which injection is stopped."""
        return [namespace for namespace, stop in self.known.items() if stop.holds]

    async def run(self, changed: Callable[[str], object]) -> None:
        """Looks again and again, until it is cancelled; `changed` is called with each namespace where it changed."""
        failing = False
        while True:
            try:
                for namespace in await asyncio.to_thread(self.look, _utc_now()):
                    changed(namespace)
                failing = False
            except Exception:  # what holds goes on
                if not failing:
                    log.warning("whether injection has to stop can't be told for now", exc_info=True)
                failing = True
            await asyncio.sleep(_AGAIN_S)

    def look(self, now: str) -> list[str]:
        """Decides once; the namespaces where something has changed.

        Raises:
            kubernetes.client.ApiException: Stops or pods can't be read, or stops not be written.
        """
        before = self._api.stops()
        pods = self._pods(before)
        after = {
            namespace: next_stop(before.get(namespace), pods[namespace], now, lambda node: self._api.agent(node)[1])
            for namespace in {*before, *pods}
        }
        changed = {namespace: stop for namespace, stop in after.items() if stop != before.get(namespace)}
        if changed:
            self._api.write_stops(changed)
        for namespace, stop in changed.items():
            _tell(namespace, stop)
        self.known = {namespace: stop for namespace, stop in after.items() if stop is not None}
        return list(changed)

    def _pods(self, stops: Mapping[str, Stop]) -> Mapping[str, list[Body]]:
        """By namespace: those that are held up, and where injection is stopped all, as some may have passed."""
        found: defaultdict[str, list[Body]] = defaultdict(list)
        holding = {namespace for namespace, stop in stops.items() if stop.holds}
        for kind in JOB_KINDS:
            for pod in self._api.job_pods(kind.all_pods):
                if failure(pod) and (namespace := pod["metadata"]["namespace"]) not in holding:
                    found[namespace].append(pod)
            for namespace in holding:
                found[namespace] += self._api.job_pods(kind.all_pods, namespace)
        return found


def _tell(namespace: str, stop: Stop | None) -> None:
    if stop is None:
        return
    if stop.holds:
        log.warning("injection is stopped in namespace %s until %s: %s", namespace, stop.until, stop.why)
    else:
        log.info("injection goes on in namespace %s", namespace)


def _utc_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
