"""The agent's ties to Kubernetes; the only user of its client, but for what reads its configuration.

api        the two threads: JobPlans in, reports and the sign of life out
plans      JobPlans as this agent reads them
reporting  when a report is worth a write
"""

from __future__ import annotations

__all__: list[str] = []
