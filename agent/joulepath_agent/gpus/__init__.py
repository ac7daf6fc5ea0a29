"""What the GPUs of the node spend.

- `energy`: the edges of their energy counters
"""

from __future__ import annotations

__all__: list[str] = []
