"""What one pod may ask of the socket, so that it keeps no other waiting.

It has so many connections at a time and so many a minute, and of its hellos only two are in the pool at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from joulepath_agent.peers.refusal import PeerRefusedError

__all__ = ["PodLimits"]

_CONNECTIONS: Final = 384
_CONNECTIONS_PER_POD: Final = 32
"""Twice the ranks of a large node: the old ones may not be gone yet."""
_BURST_PER_POD: Final = 64
_PER_POD_AND_S: Final = 2.0
"""Connections on average, after a burst: ranks whose agent was away ask again every five seconds."""
_HELLOS_PER_POD: Final = 2


@dataclass(slots=True)
class _Allowance:
    """Connections that a pod may still make now; they grow back with time."""

    left: float
    at_s: float

    def take(self, now: float) -> bool:
        self.left, self.at_s = self.left_at(now), now
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True

    def left_at(self, now: float) -> float:
        return min(_BURST_PER_POD, self.left + _PER_POD_AND_S * (now - self.at_s))


class PodLimits:
    """How often pods connect and how many of their hellos are being checked, by their UID. For one thread."""

    def __init__(self) -> None:
        self._allowances: dict[str, _Allowance] = {}
        self._hellos: Counter[str] = Counter()

    def connect(self, pod_uid: str, now: float, connected: Sequence[str]) -> None:
        """Takes one more connection; `connected` has the pod of each that is open.

        Raises:
            PeerRefusedError: The pod connects too often, or has too many connections.
        """
        if not self._allowances.setdefault(pod_uid, _Allowance(_BURST_PER_POD, now)).take(now):
            raise PeerRefusedError("TooOften", f"pod {pod_uid} connects again and again", passing=True)
        open_now = connected.count(pod_uid)
        if open_now >= _CONNECTIONS_PER_POD or len(connected) >= _CONNECTIONS:
            raise PeerRefusedError("TooManyConnections", f"pod {pod_uid} has {open_now} connections open", passing=True)

    def begin_hello(self, pod_uid: str) -> bool:
        """Whether one more of its hellos may be checked now; counted if so."""
        if self._hellos[pod_uid] >= _HELLOS_PER_POD:
            return False
        self._hellos[pod_uid] += 1
        return True

    def end_hello(self, pod_uid: str) -> None:
        """One of its hellos has been checked."""
        self._hellos -= Counter((pod_uid,))

    def forget(self, now: float) -> None:
        """Drops what is known of pods that haven't connected for long."""
        for pod in [pod for pod, a in self._allowances.items() if a.left_at(now) >= _BURST_PER_POD]:
            del self._allowances[pod]
