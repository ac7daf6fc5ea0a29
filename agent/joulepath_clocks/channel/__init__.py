"""What the clocks and the agent of a node say to each other.

- `words`: the messages, and how they are written
- `server`: the clocks' end, which never waits
"""

from __future__ import annotations

__all__: list[str] = []
