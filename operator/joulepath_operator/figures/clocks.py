"""The sweep of clocks that profiles a running job, in rounds.

The first round goes from the default clock down to where lower stops paying, denser near the top, where a plan spends
most of its choices. Its order is random, so that drift (temperature) doesn't look like an effect of the clock, and
comes back to default clocks after each. It is drawn from the job's UID: an operator that restarts draws the same.
Further rounds have the clocks that tell most of what isn't known by then; before and after each is default clocks.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from joulepath_crds import EarlierRounds, Sweep, SwitchingCost

__all__ = [
    "CLOCKS_A_ROUND",
    "FIRST_CLOCKS",
    "KNOWN",
    "LEAST_CLOCKS",
    "LOWEST_SHARE",
    "choose_clocks",
    "iterations",
    "make_sweep",
    "next_sweep",
    "swept",
]

LOWEST_SHARE: Final = 0.6
"""Lowest clock of a sweep, as a share of the default one: on A100 the least effective energy lies above."""
LEAST_CLOCKS: Final = 3
FIRST_CLOCKS: Final = 4
"""Of the first round, the default one among them."""
CLOCKS_A_ROUND: Final = 3
"""Of each round after it: what they tell is told apart, and fewer would take more rounds, each with a wait."""
KNOWN: Final = 0.01
"""Uncertainty of the frontier with which enough is known."""
_DENSITY: Final = 1.4


def choose_clocks(
    supported_mhz: Sequence[int], default_mhz: int, count: int, max_slowdown: float = 1.0
) -> tuple[int, ...]:
    """At most `count` supported clocks, highest first, the default one (or the highest below it) among them.

    max_slowdown: how much longer, as a fraction, an iteration may last at any of them. Time grows no faster than the
    clock falls.
    """
    usable = sorted({clock for clock in supported_mhz if clock <= default_mhz}, reverse=True)
    usable = [clock for clock in usable if clock * (1 + max_slowdown) >= usable[0]]
    if not usable:
        return ()
    span = usable[0] - max(usable[0] * LOWEST_SHARE, usable[-1])
    wanted = [usable[0] - span * (index / (count - 1)) ** _DENSITY for index in range(count)]
    return tuple(sorted({min(usable, key=lambda clock: abs(clock - want)) for want in wanted}, reverse=True))


def make_sweep(clocks_mhz: Sequence[int], iterations_per_clock: int, seed: str, *, again: bool = False) -> Sweep:
    """The first round's blocks: 0 stands for default clocks, which are what the first of `clocks_mhz` amounts to.

    again: the same backwards, so that it is another plan.
    """
    lower = list(clocks_mhz[1:])
    random.Random(seed).shuffle(lower)
    if again:
        lower.reverse()
    blocks = [0]
    for clock in lower:
        blocks += [clock, 0]
    return Sweep(clocks_mhz=tuple(blocks), iterations_per_block=iterations_per_clock + 1)


def next_sweep(last: Sweep, clocks_mhz: Sequence[int], noise_s: float, switching: SwitchingCost | None = None) -> Sweep:
    """The round after `last`. noise_s: of an iteration at default clocks, switching: the cost of switches, both as
    measured so far."""
    earlier = EarlierRounds(clocks_mhz=swept(last), iterations=iterations(last), noise_s=noise_s, switching=switching)
    return last.model_copy(update={"clocks_mhz": tuple(clocks_mhz), "to_and_fro_mhz": (), "earlier": earlier})


def iterations(sweep: Sweep) -> int:
    """Of all rounds up to this one, and of a sweep before that was lost."""
    return (sweep.earlier.iterations if sweep.earlier else 0) + len(sweep.clocks_mhz) * sweep.iterations_per_block


def swept(sweep: Sweep) -> tuple[int, ...]:
    """The clock of each block of all rounds up to this one."""
    return (*(sweep.earlier.clocks_mhz if sweep.earlier else ()), *sweep.clocks_mhz)
