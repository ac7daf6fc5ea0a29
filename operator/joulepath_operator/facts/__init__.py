"""What is seen of the cluster and what is decided about it: plain values that read and write nothing.

- `refusals`: why a job gets no plan
- `request`: what the planner is asked, and its answer
"""

from __future__ import annotations

__all__: list[str] = []
