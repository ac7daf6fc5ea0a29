"""Measured switching lags as the planner's lag table."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, TypeAlias

from joulepath_crds import SwitchingLag
from joulepath_planner import LagTable

__all__ = ["ASSUMED_LAG_S", "lags_of", "lags_or_assumed"]

ASSUMED_LAG_S: Final = 0.1
"""The lag planned for where none was measured: slow for a data-centre GPU (arXiv 2502.20075), hence safe."""

_Spread: TypeAlias = tuple[float, float]
"""Median and 95th percentile, in seconds."""


def lags_of(lag: SwitchingLag, default_clock_mhz: int) -> LagTable:
    """A row for each clock that was set, and one for all others. What is measured is a median and its 95th percentile.

    Agents keep the same rule: to a clock that was only lowered to, a raise goes by that lag, lengthened as raises are
    longer than lowerings, and no shorter than that to default clocks; to one that is unknown by the longer one of all
    raises and all lowerings. Agents that tell no targets raise by one number.

    default_clock_mhz: what default clocks amount to.
    """
    up, down = (lag.up_median_s, lag.up_p95_s), (lag.down_median_s, lag.down_p95_s)
    if not lag.targets:
        return _table(up, down)
    rows: dict[int, dict[str, _Spread]] = {}
    # That of default clocks comes last: no plan has a lock at the same clock.
    for row in sorted(lag.targets, key=lambda row: -row.clock_mhz):
        rows.setdefault(row.clock_mhz or default_clock_mhz, {})[row.direction] = (row.median_s, row.p95_s)
    if "up" in (default := rows.get(default_clock_mhz, {})):
        default["down"] = default["up"]  # nothing is lowered to them
    others, longer = _longer(up, down), max(1.0, up[0] / down[0]) if down[0] else 1.0
    least = default.get("up", others)
    tables = {
        clock: _table(
            known.get("up") or _longer(least, (longer * known["down"][0], longer * known["down"][1])),
            known.get("down", down),
        )
        for clock, known in rows.items()
    }
    return replace(_table(others, down), targets=tables)


def lags_or_assumed(lag: SwitchingLag | None, default_clock_mhz: int) -> LagTable:
    """The same, and what is safe where none was measured."""
    return LagTable.constant(ASSUMED_LAG_S) if lag is None else lags_of(lag, default_clock_mhz)


def _table(up: _Spread, down: _Spread) -> LagTable:
    return LagTable(up[0], down[0], up[1], down[1])


def _longer(one: _Spread, other: _Spread) -> _Spread:
    return max(one[0], other[0]), max(one[1], other[1])
