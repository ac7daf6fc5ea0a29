"""The agent's sign of life: a Lease of `coordination.k8s.io`, renewed now and then (not the lease of a clock)."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

from joulepath_agent.cluster.objects import ApiServer

__all__ = ["Heartbeat"]

_GROUP: Final = "coordination.k8s.io"
_VERSION: Final = "v1"
_LEASE_S: Final = 600
_RENEW_S: Final = 240.0
"""Nothing waits for it: it tells people whether an agent is there, on a node without a training as well."""


class Heartbeat:
    """The Lease of one node's agent."""

    def __init__(self, api: ApiServer, node: str, namespace: str) -> None:
        self._api, self._node, self._namespace = api, node, namespace
        self._renewed_at_s = -math.inf

    def beat(self, now: float) -> None:
        """Renews the Lease if that is due, at a time of the monotonic clock.

        Raises:
            OSError: The API server doesn't answer or refuses.
        """
        if now - self._renewed_at_s >= _RENEW_S:
            self._renew()
            self._renewed_at_s = now

    def _renew(self) -> None:
        name = f"joulepath-agent-{self._node}"
        spec = {
            "holderIdentity": self._node,
            "leaseDurationSeconds": _LEASE_S,
            "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        lease = {"apiVersion": f"{_GROUP}/{_VERSION}", "kind": "Lease", "metadata": {"name": name}, "spec": spec}
        leases = "apis", _GROUP, _VERSION, "namespaces", self._namespace, "leases"
        try:
            self._api.patch(lease, *leases, name)
        except FileNotFoundError:
            self._api.create(lease, *leases)
