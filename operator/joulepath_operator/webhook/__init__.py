"""The admission webhook, a process of its own: puts the trainer into the pods of annotated jobs, by `injection.patch`.

- `server`: answers the API server, always with leave
- `stops`: where injection is stopped
- `connections`: who is at the door, and for how long
"""

from __future__ import annotations

__all__: list[str] = []
