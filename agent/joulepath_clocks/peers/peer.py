"""Who is at the socket and where that pod stands: what is believed instead of a hello's own words.

Who it is, is asked by a protocol, so that all runs the same with a cluster (`cgroup`) and without one.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Identify", "JobKey", "JobPod", "Peer"]

JobKey = tuple[str, str]
"""Namespace and UID of a job: a plan moves clocks of pods of its own namespace only."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, and its pod."""

    pid: int
    """In the agent's own view of processes; 0 where that can't be told."""
    pidfd: int | None
    """Readable when the process is gone, None where nobody gave one. The endpoint closes it, after the rank."""
    pod_uid: str
    sent: bool = False
    """Whether the peer has sent its pidfd itself, as the kernel gave none."""

    def __str__(self) -> str:
        return f"process {self.pid}" if self.pid else f"a process of pod {self.pod_uid}"

    def close(self) -> None:
        """Lets its process go."""
        if self.pidfd is not None:
            os.close(self.pidfd)


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

    def __call__(self, connection: socket.socket, made_after_s: float, pod_uid: str | None) -> Peer:
        """Tells it.

        Args:
            connection: To that process.
            made_after_s: A time of CLOCK_BOOTTIME at which the connection hadn't been made yet.
            pod_uid: The pod whose own socket it came by, None at the one for all pods.

        Raises:
            PeerRefusedError: That can't be told, or it is in another pod than its socket's.
        """
