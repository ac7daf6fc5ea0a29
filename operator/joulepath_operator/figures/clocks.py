"""The sweep of clocks that profiles a running job.

From the default clock down to where lower stops paying, denser near the top, where a plan spends most of its choices.
The order is random, so that drift (temperature) doesn't look like an effect of the clock, and comes back to default
clocks every few blocks. It is drawn from the job's UID: an operator that restarts draws the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from joulepath_crds import Sweep

__all__ = ["LEAST_CLOCKS", "LOWEST_SHARE", "choose_clocks", "make_sweep"]

LOWEST_SHARE: Final = 0.6
"""Lowest clock of a sweep, as a share of the default one: on A100 the least effective energy lies above."""
LEAST_CLOCKS: Final = 3
_BLOCKS_BETWEEN_DEFAULTS: Final = 3
_DENSITY: Final = 1.4


def choose_clocks(supported_mhz: Sequence[int], default_mhz: int, count: int) -> tuple[int, ...]:
    """At most `count` supported clocks, highest first, the default one (or the highest below it) among them."""
    usable = sorted({clock for clock in supported_mhz if clock <= default_mhz}, reverse=True)
    if not usable:
        return ()
    span = usable[0] * (1 - LOWEST_SHARE)
    wanted = [usable[0] - span * (index / (count - 1)) ** _DENSITY for index in range(count)]
    return tuple(sorted({min(usable, key=lambda clock: abs(clock - want)) for want in wanted}, reverse=True))


def make_sweep(clocks_mhz: Sequence[int], iterations_per_clock: int, seed: str) -> Sweep:
    """The blocks: 0 stands for default clocks, which are what the first of `clocks_mhz` amounts to."""
    lower = list(clocks_mhz[1:])
    random.Random(seed).shuffle(lower)
    blocks = [0]
    for start in range(0, len(lower), _BLOCKS_BETWEEN_DEFAULTS):
        blocks += [*lower[start : start + _BLOCKS_BETWEEN_DEFAULTS], 0]
    return Sweep(clocks_mhz=tuple(blocks), iterations_per_block=iterations_per_clock + 1)
