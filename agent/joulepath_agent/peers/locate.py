"""Where a pod stands: a protocol, so that the agent runs the same with a cluster (`ownership`) and without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from joulepath_agent.peers.devices import NodeGpu
from joulepath_clocks.peers.peer import JobPod

__all__ = ["Locate"]


class Locate(Protocol):
    """Finds the pod and whether the GPU is its own; may take seconds."""

    def __call__(self, pod_uid: str, gpu_uuid: str, gpus: Sequence[NodeGpu]) -> JobPod:
        """Finds it, among all GPUs of the node.

        Raises:
            PeerRefusedError: The GPU isn't that pod's alone, or the pod belongs to no job.
        """

    def part(self, pod: JobPod, gpu_uuid: str, gpus: Sequence[NodeGpu]) -> str:
        """Why a pod that had the GPU alone has but a part of it now; empty if it has it alone, or nobody can tell."""
