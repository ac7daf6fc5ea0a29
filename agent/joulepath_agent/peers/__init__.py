"""Who is at the socket, and which GPU is theirs.

peer          what is believed of a peer, and who may be asked for it
cgroup        the peer's process and pod, by the kernel
podresources  the containers that hold a GPU, by the kubelet
ownership     the pod and job that a GPU belongs to
"""

from __future__ import annotations

__all__: list[str] = []
