"""Labels and annotations: ours on others' objects, and those of others that are read."""

from __future__ import annotations

from typing import Final

__all__ = [
    "AGENT_PODS",
    "FORBIDDING_LEVELS",
    "INJECTED_ANNOTATION",
    "INPUTS_ANNOTATION",
    "JOB_UID_LABEL",
    "POD_SECURITY_LABEL",
]

INPUTS_ANNOTATION: Final = "joulepath.dev/inputs"
"""On a JobPlan: digest of what it was made from; while it is equal, the plan stays as it is."""
INJECTED_ANNOTATION: Final = "joulepath.dev/injected"
"""On a Pod: the containers that the webhook gave the trainer to."""
JOB_UID_LABEL: Final = "joulepath.dev/job-uid"
"""On an EnergyProfile: the run in which it was measured."""
AGENT_PODS: Final = "app.kubernetes.io/part-of=joulepath,app.kubernetes.io/component=agent"
"""Selects the pods of the agents, one a node."""
POD_SECURITY_LABEL: Final = "pod-security.kubernetes.io/enforce"
FORBIDDING_LEVELS: Final = frozenset({"baseline", "restricted"})
"""Pod Security levels that refuse hostPath volumes, and so the agent's socket."""
