"""Labels and annotations: ours on others' objects, and those of others that are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = [
    "AGENT_PODS",
    "FORBIDDING_LEVELS",
    "INJECTED_ANNOTATION",
    "INJECTION_LABEL",
    "INPUTS_ANNOTATION",
    "POD_SECURITY_LABEL",
    "STRAGGLER_ANNOTATION",
    "first_written",
]

INPUTS_ANNOTATION: Final = "joulepath.dev/inputs"
"""On a JobPlan: digest of what it was made from; while it is equal, the plan stays as it is."""
STRAGGLER_ANNOTATION: Final = "joulepath.dev/straggler"
"""On a job: which rank or replica of it is slower than others, as somebody says."""
INJECTED_ANNOTATION: Final = "joulepath.dev/injected"
"""On a Pod: the containers that the webhook gave the trainer to."""
INJECTION_LABEL: Final = "joulepath.dev/injection"
"""On a Namespace: `volumes` lets the webhook be asked about its pods."""
AGENT_PODS: Final = "app.kubernetes.io/part-of=joulepath,app.kubernetes.io/component=agent"
"""Selects the pods of the agents, one a node."""
POD_SECURITY_LABEL: Final = "pod-security.kubernetes.io/enforce"
FORBIDDING_LEVELS: Final = frozenset({"baseline", "restricted"})
"""Pod Security levels that refuse hostPath volumes, and so the agent's socket."""


def first_written(metadata: Mapping[str, Any], kind: str, key: str) -> str | None:
    """The first time, in RFC 3339, at which somebody who wrote this label or annotation has written anything.

    Args:
        metadata: Of the object.
        kind: `labels` or `annotations`.
        key: Its name.
    """
    return min(
        (
            one["time"]
            for one in metadata.get("managedFields") or ()
            if "time" in one and f"f:{key}" in one.get("fieldsV1", {}).get("f:metadata", {}).get(f"f:{kind}", {})
        ),
        default=None,
    )
