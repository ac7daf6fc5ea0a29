"""Who is at the socket, and which GPU is theirs.

- `peer`: what is believed of a peer, and who may be asked for it
- `refusal`: why it is not served
- `budget`: what a peer may make the agent remember, compute and wait for
- `limits`: how often and how many times a pod may connect
- `process`: the peer's process, by the kernel
- `cgroup`: its pod, by its cgroup
- `devices`: what a device is that the kubelet gave away: a GPU, or a share or an instance of one
- `podresources`: the containers that hold devices, by the kubelet
- `ownership`: whether a GPU is a pod's alone, and the job of that pod
"""

from __future__ import annotations

__all__: list[str] = []
