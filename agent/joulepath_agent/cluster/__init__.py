"""The agent's ties to Kubernetes.

- `failures`: when what has failed is tried again
- `objects`: the API server's objects as plain JSON
- `plans`: JobPlans as this agent reads them
- `policy`: the EnergyPolicy as it hears of it
- `reporting`: when a report is worth a write
- `heartbeat`: the agent's sign of life
- `api`: the threads: plans and policy in, reports and the sign of life out
"""

from __future__ import annotations

__all__: list[str] = []
