"""What kopf is told: watch our kinds and those of jobs, change nothing on any of them.

Only event handlers: kopf then keeps no progress, no finalizers and no annotations on anybody's objects. They put
the object into the index and the EnergyPlans that it concerns into the queue.

To read an object may take a fifth of a second: what a node has measured is packed, and may be much. So that is done in
a thread of each kind, beside the loop in which kopf listens and the pulse beats, one object after the other; those of
other kinds don't wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import kopf

from joulepath_operator.control.index import WATCHED, Index
from joulepath_operator.facts.names import NamespacedName, Resource

__all__ = ["registry"]


def registry(index: Index, add: Callable[[NamespacedName], object]) -> kopf.OperatorRegistry:
    """Handlers that feed this index and call `add` with each EnergyPlan concerned; none for what may not be watched,
    which would end kopf."""
    handlers = kopf.OperatorRegistry()
    for login in (kopf.login_with_service_account, kopf.login_with_kubeconfig):
        kopf.on.login(id=login.__name__, registry=handlers)(login)
    for resource in (one for one in WATCHED if one not in index.closed):
        group, version, plural = resource.group, resource.version, resource.plural
        kopf.on.event(group, version, plural, id=plural, registry=handlers)(_feed(resource, index, add))
    return handlers


def _feed(resource: Resource, index: Index, add: Callable[[NamespacedName], object]) -> Callable[..., Any]:
    reader = ThreadPoolExecutor(1, thread_name_prefix=resource.plural)

    async def on_event(type: str | None, body: kopf.Body, **_: Any) -> None:
        index.heard.add(resource)
        take = index.drop if type == "DELETED" else index.put
        for key in await asyncio.get_running_loop().run_in_executor(reader, take, resource, body):
            add(key)

    return on_event
