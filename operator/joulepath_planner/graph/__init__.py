"""What waits for what, and what can be chosen.

- `dependencies`: what an instruction waits for, by its kind
- `graph`: that and the ranks' orders as a graph, and its longest paths
- `network`: the same level by level, for many assignments of durations at once
- `groups`: which instructions share a clock
- `options`: the clocks of a group that are worth choosing
"""

from __future__ import annotations

__all__: list[str] = []
