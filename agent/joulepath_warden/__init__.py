"""The warden of a node: gives clocks back, whatever becomes of the agent. Standard library and pynvml only.

The agent locks clocks; before it first touches one it leases that GPU here, and goes on saying that it is well. What it
doesn't return in time, what a warden before this one left and whatever is in doubt is reset by the warden.

- `clocks`: the range of clocks that a site locks its GPUs to
- `session`: NVML, open while it is needed
- `wire`: what agent and warden say to each other
- `logs`: lines that nobody waits for
- `garbage`: what Python gives back only when it collects garbage
- `lock`: one warden a node
- `journal`: the GPUs that may be locked, on the disk
- `driver`: NVML, as far as a reset needs it
- `leases`: what the agent holds, and until when
- `resets`: resets under way, each in a thread of its own
- `warden`: the loop that holds all of these together
"""

from __future__ import annotations

__all__: list[str] = []
