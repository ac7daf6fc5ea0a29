"""A day of a node's agent, many times as fast: what it brings, and what clocks, agent and warden have meanwhile.

- `part`: clocks, agent and warden as the product starts them
- `ranks`: a job's training processes
- `cluster`: API server and kubelet
- `day`: the node and its day
"""

from __future__ import annotations

from typing import Final

__all__ = ["CLOCKS_MHZ", "GPUS_OF_A_JOB", "ORDER"]

GPUS_OF_A_JOB: Final = 4
ORDER: Final = ("F0", "F1", "B0", "F2", "B1", "F3", "B2", "B3")
CLOCKS_MHZ: Final = (1200, 900) * 4
