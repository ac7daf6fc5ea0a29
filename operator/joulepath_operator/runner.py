"""Puts the operator together: index, queue, kopf's watches, the planner's process, what is served over HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import kopf
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from joulepath_crds.serving.guard import PATH, Guard
from joulepath_crds.serving.pages import Page, PageServer, kept
from joulepath_operator.control import watches
from joulepath_operator.control.api import Api, ForbiddenError
from joulepath_operator.control.index import WATCHED, Index
from joulepath_operator.control.queue import KeyedQueue
from joulepath_operator.control.reconcile import Reconciler
from joulepath_operator.control.settings import settings
from joulepath_operator.control.stopping import Stopping
from joulepath_operator.facts.absence import Means, Way
from joulepath_operator.facts.names import ENERGY_PLANS, NamespacedName, Resource
from joulepath_operator.metrics import Metrics
from joulepath_operator.planning.pool import PlannerLimits, PlannerPool
from joulepath_operator.pulse import Pulse

__all__ = ["list_first", "relist", "run", "unheard", "until_allowed"]

log = logging.getLogger(__name__)

_RESYNC_S: Final = 60.0
_RELIST_S: Final = 600.0
_UNHEARD_S: Final = 15.0
_FORBIDDEN_S: Final = (1.0, 3.0, 6.0)
"""An API server that has just started forbids what it doesn't know yet to be allowed."""
_KEPT_S: Final = 1.0


async def run(
    api: Api,
    means: Means,
    host: str,
    port: int,
    health_port: int,
    planner: PlannerLimits,
    metrics_tls: Path | None = None,
) -> None:
    """Runs until SIGTERM or SIGINT (kopf listens for them), or until a part fails."""
    index = Index()
    stopping = Stopping(api, index.is_annotated)
    metrics = Metrics(queue_depth=lambda: len(queue), stopped=stopping.holding)
    pool = PlannerPool(planner, observe=metrics.planner_seconds.observe)
    reconciler = Reconciler(api, index, pool, metrics, again=lambda key: queue.add(key), means=means, stops=stopping)
    queue: KeyedQueue[NamespacedName] = KeyedQueue(reconciler, on_error=lambda key: metrics.errors.inc())
    # Before anything is decided, everything is known: an empty index would look like a cluster without jobs.
    await list_first(api, index, queue)
    pulse = Pulse()
    guard = Guard(metrics_tls, api.review) if metrics_tls else None
    servers = (_serve(metrics, host, port, guard), pulse.serve(host, health_port))
    parts = [
        asyncio.create_task(pulse.beat()),
        asyncio.create_task(
            kopf.operator(
                registry=watches.registry(index, queue.add),
                settings=settings(),
                clusterwide=True,
                standalone=True,
            )
        ),
        asyncio.create_task(queue.run(_RESYNC_S, lambda: index.keys(ENERGY_PLANS))),
        asyncio.create_task(_relist_forever(api, index, queue)),
        asyncio.create_task(_relist_forever(api, index, queue, _UNHEARD_S, unheard)),
    ]
    if index.closed:
        parts.append(asyncio.create_task(until_allowed(api, index, queue)))
    if means.way is Way.VOLUMES and api.stops_anything:
        parts.append(asyncio.create_task(stopping.run(lambda namespace: _concern(namespace, index, queue))))
    try:
        done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        for part in done:
            part.result()
    finally:
        for part in parts:
            part.cancel()
        await asyncio.gather(*parts, return_exceptions=True)
        for server in servers:
            server.close()


async def list_first(
    api: Api, index: Index, queue: KeyedQueue[NamespacedName], pauses_s: Sequence[float] = _FORBIDDEN_S
) -> None:
    """Everything; what this account may not list, after these pauses neither, is said and noted. An operator is newer
    than its ClusterRole where only its image was changed: it waits for that, and says so in each EnergyPlan."""
    forbidden = await _forbidden(api, index, queue, WATCHED)
    for pause_s in pauses_s:
        if forbidden:
            await asyncio.sleep(pause_s)
            forbidden = await _forbidden(api, index, queue, tuple(forbidden))
    for error in forbidden.values():
        log.error("%s; the operator needs the ClusterRole of its own release (helm upgrade)", error)
    index.closed = frozenset(forbidden)


async def _forbidden(
    api: Api, index: Index, queue: KeyedQueue[NamespacedName], resources: Iterable[Resource]
) -> dict[Resource, ForbiddenError]:
    """What of it may not be listed."""
    found = dict[Resource, ForbiddenError]()
    for resource in resources:
        try:
            await relist(api, index, queue, (resource,))
        except ForbiddenError as error:
            found[resource] = error
    return found


async def until_allowed(api: Api, index: Index, queue: KeyedQueue[NamespacedName], every_s: float = _UNHEARD_S) -> None:
    """Returns once anything may be read that mayn't at first: who starts anew watches that, too."""
    while True:
        await asyncio.sleep(every_s)
        for resource in index.closed:
            try:
                await relist(api, index, queue, (resource,))
            except ForbiddenError:
                continue
            except Exception:
                log.warning("whether %s may be listed can't be told for now", resource.plural, exc_info=True)
                continue
            log.warning(
                "%s may be listed by now: the operator ends, to be started anew and watch them", resource.plural
            )
            return


async def relist(
    api: Api, index: Index, queue: KeyedQueue[NamespacedName], resources: Iterable[Resource] = WATCHED
) -> None:
    for resource in resources:
        for key in await asyncio.to_thread(_listed, api, index, resource):
            queue.add(key)


def _listed(api: Api, index: Index, resource: Resource) -> set[NamespacedName]:
    known = index.uids(resource)
    bodies = api.list_all(resource)
    if bodies is None:  # what is known stays: an API server that has just started may not know ours yet
        index.heard.discard(resource)
        return set()
    return index.replace(resource, bodies, known)


def _concern(namespace: str, index: Index, queue: KeyedQueue[NamespacedName]) -> None:
    for key in index.keys(ENERGY_PLANS):
        if key[0] == namespace:
            queue.add(key)


def unheard(index: Index) -> tuple[Resource, ...]:
    """Kinds that a cluster may get later, of which no watch has told: kopf looks for them when their definition comes,
    which may be a moment before they are served, and then never again."""
    return tuple(resource for resource in _open(index) if resource.optional and resource not in index.heard)


def _open(index: Index) -> tuple[Resource, ...]:
    return tuple(resource for resource in WATCHED if resource not in index.closed)


async def _relist_forever(
    api: Api,
    index: Index,
    queue: KeyedQueue[NamespacedName],
    every_s: float = _RELIST_S,
    which: Callable[[Index], Iterable[Resource]] = _open,
) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            await relist(api, index, queue, which(index))
        except Exception:  # the watches go on, and the next list comes
            log.warning("listing everything anew failed", exc_info=True)


def _serve(metrics: Metrics, host: str, port: int, guard: Guard | None) -> PageServer:
    page = kept(lambda: Page(generate_latest(metrics.registry), kind=CONTENT_TYPE_LATEST), _KEPT_S)
    return PageServer("metrics", host, port, {PATH: page}, guard)
