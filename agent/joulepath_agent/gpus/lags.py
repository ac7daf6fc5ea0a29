"""How long a GPU's switches of clock took, as measured by its setter."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final, Literal

import numpy as np

from joulepath_crds import SwitchingLag

__all__ = ["UNKNOWN_LAG_S", "Lags", "Way"]

UNKNOWN_LAG_S: Final = 0.1
"""Taken while no switch has been measured: a raise that is too early costs energy, one that is too late costs time."""
_KEPT: Final = 256
_MOST_IN_VAIN: Final = 20
"""Switches in a direction, one after the other in a lease, after which it isn't measured any more: a GPU that is capped
never gets to its highest clock."""

Way = Literal["up", "down"]


class Lags:
    """The last lags of one GPU, in seconds. One thread adds, others may read."""

    def __init__(self) -> None:
        self._lags: dict[Way, deque[float]] = {"up": deque(maxlen=_KEPT), "down": deque(maxlen=_KEPT)}
        self._in_vain: Counter[Way] = Counter()

    @property
    def up_p95_s(self) -> float:
        """95th percentile of the lag to a higher clock."""
        lags = tuple(self._lags["up"])
        return float(np.quantile(lags, 0.95)) if lags else UNKNOWN_LAG_S

    def summary(self) -> SwitchingLag | None:
        """The lags measured; None until there is one in each direction."""
        up, down = tuple(self._lags["up"]), tuple(self._lags["down"])
        if not up or not down:
            return None
        (um, up95), (dm, down95) = (np.quantile(side, (0.5, 0.95)).tolist() for side in (up, down))
        return SwitchingLag(
            up_median_s=um, up_p95_s=up95, down_median_s=dm, down_p95_s=down95, samples=len(up) + len(down)
        )

    def are_worth_measuring(self, way: Way) -> bool:
        """Whether the last switches that way came in force."""
        return self._in_vain[way] < _MOST_IN_VAIN

    def add(self, way: Way, lag_s: float | None) -> None:
        """Takes one more; None where the switch wasn't seen to come in force."""
        self._in_vain[way] = self._in_vain[way] + 1 if lag_s is None else 0
        if lag_s is not None:
            self._lags[way].append(lag_s)

    def begin_with(self, way: Way, lags_s: Iterable[float]) -> None:
        """Takes over lags that a doctor has measured, while it has none of its own."""
        if not self._lags[way]:
            self._lags[way].extend(lags_s)

    def begin_anew(self) -> None:
        """Another lease: what was in vain may not be so any more."""
        self._in_vain.clear()
