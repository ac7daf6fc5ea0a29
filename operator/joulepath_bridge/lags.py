"""Measured switching lags as the planner's lag table."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, TypeAlias

from joulepath_crds import SwitchingLag, TargetLag
from joulepath_planner import LagTable

__all__ = ["ASSUMED_LAG_S", "lags_of", "lags_or_assumed"]

ASSUMED_LAG_S: Final = 0.1
"""The lag planned for where none was measured: slow for a data-centre GPU (arXiv 2502.20075), hence safe."""

_SURE_RAISES: Final = 20
"""Measured to a clock, from which on lowerings to it say nothing more."""

_Spread: TypeAlias = tuple[float, float]
"""Median and 95th percentile, in seconds."""


def lags_of(lag: SwitchingLag, default_clock_mhz: int) -> LagTable:
    """A row for each clock that was set, and one for all others. What is measured is a median and its 95th percentile.

    Agents keep the same rule: to a clock that was only lowered to, a raise goes by that lag, lengthened as raises are
    longer than lowerings, and no shorter than that to default clocks; to one that was raised to a few times by the
    longer one of the two; to one that is unknown by the longer one of all raises and all lowerings. Agents that tell no
    targets raise by one number.

    default_clock_mhz: what default clocks amount to.
    """
    up, down = (lag.up_median_s, lag.up_p95_s), (lag.down_median_s, lag.down_p95_s)
    if not lag.targets:
        return _table(up, down)
    rows: dict[int, dict[str, TargetLag]] = {}
    # That of default clocks comes last: no plan has a lock at the same clock.
    for row in sorted(lag.targets, key=lambda row: -row.clock_mhz):
        rows.setdefault(row.clock_mhz or default_clock_mhz, {})[row.direction] = row
    default, tables = rows.get(default_clock_mhz, {}), dict[int, LagTable]()
    others, longer = _longer(up, down), max(1.0, up[0] / down[0]) if down[0] else 1.0
    least = _spread(default["up"]) if "up" in default else others
    if "up" in default:  # nothing is lowered to them
        del rows[default_clock_mhz]
        tables[default_clock_mhz] = _table(least, least)
    for clock, known in rows.items():
        raised, lowered = known.get("up"), known.get("down")
        to = _spread(raised) if raised is not None else least
        if lowered is not None and (raised is None or raised.samples < _SURE_RAISES):
            to = _longer(to, (longer * lowered.median_s, longer * lowered.p95_s))
        tables[clock] = _table(to, down if lowered is None else _spread(lowered))
    return replace(_table(others, down), targets=tables)


def lags_or_assumed(lag: SwitchingLag | None, default_clock_mhz: int) -> LagTable:
    """The same, and what is safe where none was measured."""
    return LagTable.constant(ASSUMED_LAG_S) if lag is None else lags_of(lag, default_clock_mhz)


def _table(up: _Spread, down: _Spread) -> LagTable:
    return LagTable(up[0], down[0], up[1], down[1])


def _spread(row: TargetLag) -> _Spread:
    return row.median_s, row.p95_s


def _longer(one: _Spread, other: _Spread) -> _Spread:
    return max(one[0], other[0]), max(one[1], other[1])
