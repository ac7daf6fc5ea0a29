"""The lags of several GPUs of one model as one, to plan with.

A slow GPU counts by its median. Tails are the middle one of the GPUs': the 95th percentile of a GPU's few switches is
its slowest one, often the host's delay in seeing it, and the slowest of all would only be that.

The same holds for each clock that is switched to. Of a GPU that doesn't know its lag to one, what it knows of
all is its tail there.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Literal

from joulepath_crds import MOST_TARGETS, SwitchingLag, TargetLag

__all__ = ["pooled"]


def pooled(lags: Sequence[SwitchingLag]) -> SwitchingLag:
    """The lag to plan with for these GPUs, one at least."""
    up_s, down_s = (max(lag.up_median_s for lag in lags), max(lag.down_median_s for lag in lags))
    keys = sorted({(row.clock_mhz, row.direction) for lag in lags for row in lag.targets or ()})
    rows = [_row(lags, *key) for key in keys]
    return SwitchingLag(
        up_median_s=up_s,
        up_p95_s=max(up_s, median(lag.up_p95_s for lag in lags)),
        down_median_s=down_s,
        down_p95_s=max(down_s, median(lag.down_p95_s for lag in lags)),
        samples=sum(lag.samples for lag in lags),
        targets=tuple(sorted(rows, key=lambda row: -row.samples)[:MOST_TARGETS]) or None,
    )


def _row(lags: Sequence[SwitchingLag], clock_mhz: int, direction: Literal["up", "down"]) -> TargetLag:
    known, tails_s = [], []
    for lag in lags:
        rows = (row for row in lag.targets or () if (row.clock_mhz, row.direction) == (clock_mhz, direction))
        if (row := next(rows, None)) is not None:
            known.append(row)
        tails_s.append(row.p95_s if row else lag.up_p95_s if direction == "up" else lag.down_p95_s)
    middle_s = max(row.median_s for row in known)
    return TargetLag(
        clock_mhz=clock_mhz,
        direction=direction,
        median_s=middle_s,
        p95_s=max(middle_s, median(tails_s)),
        samples=sum(row.samples for row in known),
    )
