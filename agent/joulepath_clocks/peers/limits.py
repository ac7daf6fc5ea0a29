"""What one pod may ask of the socket, so that it keeps no other waiting.

It has so many connections at a time and so many a minute, and of its hellos only two are in the pool at once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from joulepath_clocks.peers.budget import Budget
from joulepath_clocks.peers.refusal import PeerRefusedError

__all__ = ["Allowance", "PodLimits"]


@dataclass(slots=True)
class Allowance:
    """So much at once, and so much a second: what is spent grows back with time (a token bucket)."""

    burst: float
    per_s: float
    at_s: float
    left: float = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.burst

    def ready(self, now: float) -> bool:
        """Whether there is something left. One may spend more than that, once, and waits longer then."""
        self.left, self.at_s = min(self.burst, self.left + self.per_s * (now - self.at_s)), now
        return self.left > 0

    def spend(self, amount: float) -> None:
        """Takes from it."""
        self.left -= amount


class PodLimits:
    """How often pods connect, what they have open and how many of their hellos are being checked. For one thread."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._allowances: dict[str, Allowance] = {}
        self._open: Counter[str] = Counter()
        self._hellos: Counter[str] = Counter()

    def connect(self, pod_uid: str, now: float) -> None:
        """Takes one more connection.

        Raises:
            PeerRefusedError: The pod connects too often, or has too many connections.
        """
        budget = self._budget
        fresh = Allowance(budget.connects_burst, budget.connects_per_s, now)
        allowance = self._allowances.setdefault(pod_uid, fresh)
        if not allowance.ready(now):
            raise PeerRefusedError("TooOften", f"pod {pod_uid} connects again and again")
        allowance.spend(1)
        if self._open[pod_uid] >= budget.connections_per_pod or self._open.total() >= budget.connections:
            what = f"pod {pod_uid} has {self._open[pod_uid]} connections open"
            raise PeerRefusedError("TooManyConnections", what)
        self._open[pod_uid] += 1

    def disconnect(self, pod_uid: str) -> None:
        """One of its connections is closed."""
        self._open -= Counter((pod_uid,))

    def begin_hello(self, pod_uid: str) -> bool:
        """Whether one more of its hellos may be checked now; counted if so."""
        if self._hellos[pod_uid] >= self._budget.hellos_per_pod:
            return False
        self._hellos[pod_uid] += 1
        return True

    def end_hello(self, pod_uid: str) -> None:
        """One of its hellos has been checked."""
        self._hellos -= Counter((pod_uid,))

    def forget(self, now: float) -> None:
        """Drops what is known of pods that haven't connected for long."""
        for pod in [pod for pod, one in self._allowances.items() if one.ready(now) and one.left >= one.burst]:
            del self._allowances[pod]
