"""Inside the training process: tells the node's agent where the GPU is in an iteration, and nothing more.

Standard library only. It fails open: whatever goes wrong here, training goes on as if it were not there.
"""

from __future__ import annotations

__all__: list[str] = []
