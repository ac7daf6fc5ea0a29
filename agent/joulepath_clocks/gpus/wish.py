"""What a rank wants of its GPU's clock. Clocks are in MHz; 0 is default clocks: no lock of ours, the highest of all."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

__all__ = ["DEFAULT", "Wish", "height"]

DEFAULT: Final = 0


class Wish(NamedTuple):
    """A clock now and perhaps another one later. A newer wish replaces an older one whole."""

    now_mhz: int
    later_mhz: int | None = None
    later_at_s: float = math.inf
    """On the agent's monotonic clock."""
    measure: bool = False
    """Whether to measure how long the switch takes."""


def height(clock_mhz: int) -> float:
    """Orders clocks; default clocks count as the highest."""
    return math.inf if clock_mhz == DEFAULT else clock_mhz
