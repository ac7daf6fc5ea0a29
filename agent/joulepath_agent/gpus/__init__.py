"""What the GPUs of the node spend.

- `rhythm`: when a counter moves that moves evenly
- `energy`: the edges of their energy counters
"""

from __future__ import annotations

__all__: list[str] = []
