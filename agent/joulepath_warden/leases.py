"""What the agent holds, and until when. Pure: moments are of the monotonic clock, and come from outside.

A lease that was revoked stays until the agent gives it back or is gone: till then a late order of the agent may still
lock the clock.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from joulepath_warden.wire import DEADLINE_S

__all__ = ["Leases"]


class Leases:
    """The leases of one agent, by the UUIDs of their GPUs."""

    def __init__(self) -> None:
        self._until_s: dict[str, float] = {}

    def __contains__(self, uuid: str) -> bool:
        return uuid in self._until_s

    def __iter__(self) -> Iterator[str]:
        return iter(self._until_s)

    def __len__(self) -> int:
        return len(self._until_s)

    @property
    def revoked(self) -> tuple[str, ...]:
        """Those that the agent has to give back."""
        return tuple(sorted(uuid for uuid, until_s in self._until_s.items() if math.isinf(until_s)))

    def keep(self, uuids: Collection[str], now_s: float) -> None:
        """Begins or prolongs leases; one that was revoked is so for good."""
        for uuid in uuids:
            if not math.isinf(self._until_s.get(uuid, 0.0)):
                self._until_s[uuid] = now_s + DEADLINE_S

    def revoke(self, now_s: float = math.inf) -> tuple[str, ...]:
        """Revokes those that are due by then: all, unless told otherwise; which were."""
        due = [uuid for uuid, until_s in self._until_s.items() if not math.isinf(until_s) and until_s <= now_s]
        self._until_s.update(dict.fromkeys(due, -math.inf))
        return tuple(due)

    def end(self, uuid: str) -> None:
        """Forgets one."""
        self._until_s.pop(uuid, None)
