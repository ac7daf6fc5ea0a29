"""Looks for pods that what we add keeps from starting or being made, and writes down where injection is stopped.

What is written is read anew each time, so that whoever takes a stop out of the ConfigMap by hand has it his way: it is
over then, and what was before it counts no more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from joulepath_crds import JobName
from joulepath_operator.control.api import Api, Body
from joulepath_operator.facts.admission import Denial, Stop
from joulepath_operator.injection.breaker import next_stop
from joulepath_operator.jobs.kinds import JOB_KINDS

__all__ = ["Stopping"]

log = logging.getLogger(__name__)

_AGAIN_S: Final = 10.0
_MOST_STOPS: Final = 600
"""A ConfigMap has 1 MiB, and an entry may take 1.5 KiB."""


class Stopping:
    """`known` are the stops as they are now, by namespace, those among them that are over.

    `is_annotated` tells whether the pods of a job, or of what it has made, get the trainer.
    """

    def __init__(self, api: Api, is_annotated: Callable[[str, JobName], bool] = lambda namespace, job: True) -> None:
        self._api, self._is_annotated = api, is_annotated
        self.known: Mapping[str, Stop] = {}
        self._unwritten: Mapping[str, Stop | None] = {}

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
        written = self._api.stops()
        before = {**_taken_out(self.known, written, now), **written, **self._unwritten}
        injecting = set(self._api.injecting_namespaces())
        decided: dict[str, Stop] = {}
        for namespace in {*before, *injecting}:
            old = before.get(namespace)
            asked = namespace in injecting
            pods, denials = (self._pods(namespace, old), self._denials(namespace)) if asked else ((), ())
            if stop := next_stop(old, pods, now, lambda node: self._api.agent(node)[1], denials):
                decided[namespace] = stop
        self.known = _as_many_as_fit(decided)
        changed = {
            namespace: self.known.get(namespace)
            for namespace in {*written, *self.known}
            if self.known.get(namespace) != written.get(namespace)
        }
        self._unwritten = changed
        if changed:
            self._api.write_stops(changed)
        self._unwritten = {}
        for namespace, stop in changed.items():
            _tell(namespace, stop)
        return list(changed)

    def _pods(self, namespace: str, stop: Stop | None) -> Iterator[Body]:
        """Those that don't run, and where injection is stopped all, as some may have passed."""
        for label in {kind.pods_made_by.pod_label for kind in JOB_KINDS}:
            yield from self._api.job_pods(label, namespace, running=stop is not None and stop.holds)

    def _denials(self, namespace: str) -> Iterator[Denial]:
        for maker, reason in {(kind.pods_made_by, kind.denied) for kind in JOB_KINDS}:
            for denial in self._api.denials(namespace, maker.kind, reason):
                if self._is_annotated(namespace, JobName(maker, denial.job, denial.uid)):
                    yield denial


def _taken_out(known: Mapping[str, Stop], written: Mapping[str, Stop], now: str) -> Mapping[str, Stop]:
    """The stops that held and aren't written any more."""
    gone = {namespace: stop for namespace, stop in known.items() if stop.holds and namespace not in written}
    return {namespace: replace(stop, over_at=now) for namespace, stop in gone.items()}


def _as_many_as_fit(stops: Mapping[str, Stop]) -> Mapping[str, Stop]:
    """What is over makes room first, then what came last."""
    first = sorted(stops.items(), key=lambda one: (not one[1].holds, one[1].since))
    return dict(first[:_MOST_STOPS])


def _tell(namespace: str, stop: Stop | None) -> None:
    if stop is None:
        return
    if stop.holds:
        log.warning("injection is stopped in namespace %s until %s: %s", namespace, stop.until, stop.why)
    else:
        log.info("injection goes on in namespace %s", namespace)


def _utc_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
