"""The agent's sign of life: a Lease of `coordination.k8s.io`, renewed now and then (not the lease of a clock)."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

from kubernetes import client

from joulepath_agent.cluster.failures import failures_as_oserror

__all__ = ["Heartbeat"]

_GROUP: Final = "coordination.k8s.io"
_VERSION: Final = "v1"
_LEASE_S: Final = 40
_RENEW_S: Final = 10.0


class Heartbeat:
    """The Lease of one node's agent."""

    def __init__(self, api: client.ApiClient, node: str, namespace: str, timeout_s: tuple[float, float]) -> None:
        self._leases = client.CustomObjectsApi(api)
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
        spec = {
            "holderIdentity": self._node,
            "leaseDurationSeconds": _LEASE_S,
            "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        lease = {"apiVersion": f"{_GROUP}/{_VERSION}", "kind": "Lease", "metadata": {"name": name}, "spec": spec}
        where = _GROUP, _VERSION, self._namespace, "leases"
        try:
            with failures_as_oserror():
                self._leases.patch_namespaced_custom_object(*where, name, lease, _request_timeout=self._timeout_s)
        except FileNotFoundError:
            with failures_as_oserror():
                self._leases.create_namespaced_custom_object(*where, lease, _request_timeout=self._timeout_s)
