"""The agent's sign of life: a Lease of `coordination.k8s.io`, renewed now and then (not the lease of a clock)."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

from kubernetes import client

from joulepath_agent.cluster.failures import failures_as_oserror

__all__ = ["Heartbeat"]

_LEASE_S: Final = 40
_RENEW_S: Final = 10.0


class Heartbeat:
    """The Lease of one node's agent."""

    def __init__(self, api: client.ApiClient, node: str, namespace: str, timeout_s: tuple[float, float]) -> None:
        self._leases = client.CoordinationV1Api(api)
        self._node, self._namespace, self._timeout_s = node, namespace, timeout_s
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
        spec = client.V1LeaseSpec(
            holder_identity=self._node, lease_duration_seconds=_LEASE_S, renew_time=datetime.now(UTC)
        )
        lease = client.V1Lease(metadata=client.V1ObjectMeta(name=name), spec=spec)
        try:
            with failures_as_oserror():
                self._leases.patch_namespaced_lease(name, self._namespace, lease, _request_timeout=self._timeout_s)
        except FileNotFoundError:
            with failures_as_oserror():
                self._leases.create_namespaced_lease(self._namespace, lease, _request_timeout=self._timeout_s)
