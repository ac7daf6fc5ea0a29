"""When instructions ran, and what lies between them that no clock changes.

- `timelines`: the timelines of a pipeline's ranks, brought to one clock
- `learning`: when messages leave and are awaited, learnt from them
- `single`: instructions that are other than those of their kind
- `delays`: delays that no clock changes
"""

from __future__ import annotations

__all__: list[str] = []
