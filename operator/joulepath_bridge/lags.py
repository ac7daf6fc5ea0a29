"""Measured switching lags as the planner's lag table."""

from __future__ import annotations

from typing import Final

from joulepath_crds import SwitchingLag
from joulepath_planner import LagTable

__all__ = ["ASSUMED_LAG_S", "lags_of", "lags_or_assumed"]

ASSUMED_LAG_S: Final = 0.1
"""The lag planned for where none was measured: slow for a data-centre GPU (arXiv 2502.20075), hence safe."""


def lags_of(lag: SwitchingLag) -> LagTable:
    """One row for all clocks: what is measured is a direction's median and its 95th percentile."""
    return LagTable(lag.up_median_s, lag.down_median_s, lag.up_p95_s, lag.down_p95_s)


def lags_or_assumed(lag: SwitchingLag | None) -> LagTable:
    """The same, and what is safe where none was measured."""
    return LagTable.constant(ASSUMED_LAG_S) if lag is None else lags_of(lag)
