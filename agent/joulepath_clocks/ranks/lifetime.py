"""How long plans may be played without news of them: a plan that was withdrawn unheard must not live on for ever."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["DEFAULT_TIME_TO_LIVE_S", "TimeToLive"]

DEFAULT_TIME_TO_LIVE_S: Final = 900.0


class TimeToLive:
    """Of all plans of a node, since they are heard of together. Times are the monotonic clock's."""

    def __init__(self, seconds: float) -> None:
        """Over until there is news."""
        self._seconds = seconds
        self._heard_at_s = -math.inf

    def renew(self, now_s: float) -> None:
        """A withdrawal would have been heard until now."""
        self._heard_at_s = max(self._heard_at_s, now_s)

    def expired(self, now_s: float) -> str:
        """Why plans may be played no more; empty while they may."""
        if now_s - self._heard_at_s <= self._seconds:
            return ""
        return f"no news of plans for more than {self._seconds:.0f} s, one may have been withdrawn since"
