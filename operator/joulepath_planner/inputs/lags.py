"""How long a GPU takes to switch its clock, by direction and by the clock that it switches to.

Lags differ widely among GPU models and depend mostly on the target clock (arXiv 2502.20075), so a table may have a row
for each target. A row has what a switch takes, and its 95th percentile, which the agent counts on when it raises early:
that of the target where it knows it, else one for all.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from joulepath_planner.arguments import LONGEST_S, check_fields, quoted
from joulepath_planner.errors import ArgumentError

__all__ = ["NO_LAG", "LagTable"]

_NORMAL_P95: Final = 1.6449
"""Standard deviations from the median of a normal distribution to its 95th percentile."""
_EXPONENTIAL_P95: Final = math.log(20)


@dataclass(frozen=True, slots=True)
class LagTable:
    """Seconds from a set to the clock in force, for a raise and for a lowering: the median, and its p95.

    targets: by target clock in MHz, the table of switches to that clock; others have the lags of this table.
    pause_s: for how long a GPU's work stands still once a clock is in force, to whichever it is.

    Raises:
        ArgumentError: A lag is no time, or a target has targets of its own.
    """

    up_s: float
    down_s: float
    p95_up_s: float
    p95_down_s: float
    targets: Mapping[int, LagTable] = field(default_factory=dict)
    pause_s: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("up_s", "down_s", "p95_up_s", "p95_down_s", "pause_s"):
            if not 0 <= (value := getattr(self, name)) <= LONGEST_S:
                raise ArgumentError(
                    f"{name} is {quoted(value)}; a lag is a finite number of seconds, 0 or more and up to a day."
                )
        for target, table in self.targets.items():
            if table.targets:
                raise ArgumentError(
                    f"the lags to {target} MHz have targets of their own; give one table for each target."
                )

    @classmethod
    def constant(cls, lag_s: float) -> LagTable:
        return cls(lag_s, lag_s, lag_s, lag_s)

    @property
    def worst_p95_s(self) -> float:
        return max(max(table.p95_up_s, table.p95_down_s) for table in (self, *self.targets.values()))

    @property
    def worst_p95_up_s(self) -> float:
        return max(table.p95_up_s for table in (self, *self.targets.values()))

    def among(self, clocks_mhz: Collection[int]) -> LagTable:
        """The lags between these clocks: what is slow to others counts for nothing."""
        rows = {clock: table for clock, table in self.targets.items() if clock in clocks_mhz}
        if rows and all(clock in rows for clock in clocks_mhz):
            return replace(next(iter(rows.values())), targets=rows, pause_s=self.pause_s)
        return replace(self, targets=rows)

    def of(self, target_mhz: int) -> LagTable:
        return self.targets.get(target_mhz, self)

    def p95_s(self, target_mhz: int) -> float:
        """The longer one of the two directions."""
        row = self.of(target_mhz)
        return max(row.p95_up_s, row.p95_down_s)

    def draw_s(self, target_mhz: int, up: bool, source: Random | None) -> float:
        """A switch's lag: the median, or one drawn from its spread (log-normal; exponential if the median is 0)."""
        table = self.of(target_mhz)
        median, p95 = (table.up_s, table.p95_up_s) if up else (table.down_s, table.p95_down_s)
        if source is None or p95 <= median:
            return median
        if median == 0:
            return source.expovariate(_EXPONENTIAL_P95 / p95)
        return median * math.exp(source.gauss(0.0, math.log(p95 / median) / _NORMAL_P95))


NO_LAG: Final = LagTable.constant(0.0)
