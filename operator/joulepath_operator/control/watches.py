"""What kopf is told: watch five resources, change nothing on any of them.

Only event handlers: kopf then keeps no progress, no finalizers and no annotations on anybody's objects. They put
the object into the index and the EnergyPlans that it concerns into the queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kopf

from joulepath_operator.control.index import WATCHED, Index
from joulepath_operator.facts.names import NamespacedName, Resource

__all__ = ["registry"]


def registry(index: Index, add: Callable[[NamespacedName], object]) -> kopf.OperatorRegistry:
    """Handlers that feed this index and call `add` with each EnergyPlan concerned."""
    handlers = kopf.OperatorRegistry()
    for login in (kopf.login_with_service_account, kopf.login_with_kubeconfig):
        kopf.on.login(id=login.__name__, registry=handlers)(login)
    for resource in WATCHED:
        group, version, plural = resource.group, resource.version, resource.plural
        kopf.on.event(group, version, plural, id=plural, registry=handlers)(_feed(resource, index, add))
    return handlers


def _feed(resource: Resource, index: Index, add: Callable[[NamespacedName], object]) -> Callable[..., Any]:
    async def on_event(type: str | None, body: kopf.Body, **_: Any) -> None:
        index.heard.add(resource)
        for key in (index.drop if type == "DELETED" else index.put)(resource, body):
            add(key)

    return on_event
