"""Where the pod of a peer stands, and which GPU is its own.

- `devices`: what a device is that the kubelet gave away: a GPU, or a share or an instance of one
- `unary`: a gRPC call
- `podresources`: the containers that hold devices, by the kubelet
- `locate`: who may be asked
- `ownership`: whether a GPU is a pod's alone, and the job of that pod
"""

from __future__ import annotations

__all__: list[str] = []
