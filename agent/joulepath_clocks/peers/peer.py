"""Who is at the socket and where that pod stands: what is believed instead of a hello's own words.

Who it is, is asked by a protocol, so that all runs the same with a cluster (`cgroup`) and without one.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Identify", "JobKey", "JobPod", "Peer"]

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
