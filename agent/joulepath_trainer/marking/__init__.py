"""How a place in a rank's work is marked.

- `cuda`: by the GPU's stream, through the CUDA driver
- `marks`: by whichever can: the stream, or the host where it does the work itself
"""

from __future__ import annotations

__all__: list[str] = []
