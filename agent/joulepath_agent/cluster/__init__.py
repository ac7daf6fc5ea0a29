"""The agent's ties to Kubernetes.

- `failures`: what the client raises, as OSError, and when it is tried again
- `objects`: objects as plain JSON
- `plans`: JobPlans as this agent reads them
- `reporting`: when a report is worth a write
- `heartbeat`: the agent's sign of life
- `api`: the two threads: plans in, reports and the sign of life out
"""

from __future__ import annotations

__all__: list[str] = []
