"""Who is at the socket and where that pod stands: what the agent believes instead of a hello's own words.

Both are protocols, so that the agent runs the same with a cluster (`cgroup`, `ownership`) and without one.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from joulepath_agent.peers.devices import NodeGpu

__all__ = ["Identify", "JobKey", "JobPod", "Locate", "Peer"]

JobKey = tuple[str, str]
"""Namespace and UID of a job: a plan moves clocks of pods of its own namespace only."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, as the kernel tells."""

    pid: int
    """In the agent's own view of processes."""
    pidfd: int
    """Readable when the process is gone. The endpoint closes it, after the rank."""
    pod_uid: str


@dataclass(frozen=True, slots=True)
class JobPod:
    """The pod of a peer and the job that it belongs to."""

    namespace: str
    name: str
    uid: str
    job: str
    job_uid: str

    @property
    def job_key(self) -> JobKey:
        """The key of that job."""
        return self.namespace, self.job_uid


class Identify(Protocol):
    """Tells who is at the other end."""

    def __call__(self, connection: socket.socket, made_after_s: float) -> Peer:
        """Tells it.

        Args:
            connection: To that process.
            made_after_s: A time of CLOCK_BOOTTIME at which the connection hadn't been made yet.

        Raises:
            PeerRefusedError: That can't be told.
        """


class Locate(Protocol):
    """Finds the pod and whether the GPU is its own; may take seconds."""

    def __call__(self, pod_uid: str, gpu_uuid: str, gpus: Sequence[NodeGpu]) -> JobPod:
        """Finds it, among all GPUs of the node.

        Raises:
            PeerRefusedError: The GPU isn't that pod's alone, or the pod belongs to no job.
        """

    def part(self, pod: JobPod, gpu_uuid: str, gpus: Sequence[NodeGpu]) -> str:
        """Why a pod that had the GPU alone has but a part of it now; empty if it has it alone, or nobody can tell."""
