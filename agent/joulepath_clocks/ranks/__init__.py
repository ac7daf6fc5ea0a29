"""The ranks on the node's GPUs: which clock each of them wants, and when.

- `page`: the memory that a rank shares with its node
- `progress`: when its next marker is due, and how long none may come
- `reason`: why it runs at default clocks although its job has a plan
- `lifetime`: how long plans are played without news of them
- `score`: a plan as it plays it
- `switching`: when a clock is ordered: raise early, lower late
- `guard`: whether a plan keeps its promise, within a few iterations
- `slow_guard`: whether it keeps it in the long run, by its control blocks
- `group`: tensor-parallel peers switch together
- `conductor`: from markers and a plan to wishes
- `rank`: a rank: all of this, and its lease
"""

from __future__ import annotations

__all__: list[str] = []
