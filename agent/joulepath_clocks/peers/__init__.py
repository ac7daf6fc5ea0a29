"""Who is at the socket.

- `peer`: what is believed of a peer, and who may be asked for it
- `refusal`: why it is not served
- `budget`: what a peer may make the node remember, compute and wait for
- `limits`: how often and how many times a pod may connect
- `process`: the peer's process, by the kernel
- `cgroup`: its pod, by its cgroup
- `sent`: the peer's process, by its own word
"""

from __future__ import annotations

__all__: list[str] = []
