"""What switches of clock cost by themselves, as a running job tells it.

The lag says how long a switch takes to come in force, not whether work stands still meanwhile. So the job tries it: in
some blocks the clock of each GPU goes to and fro with each instruction, between two neighbouring clocks, and others
hold either of the two. Work is as good as the same in all of them; what differs is that the first ones switch. Orders
to the clock that is in force would differ by less still, but a driver may well do nothing about them.

Blocks come in pairs, one of each sort, in random order. The cost is the mean of those that switch less that of those
that hold, the two clocks alike; its interval is Student's, of what blocks of one sort and clock differ by.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import sqrt
from statistics import fmean, mode
from typing import Final

from joulepath_crds import JobPlanSpec, RankReport, Sweep, SwitchingCost, held_clock_mhz
from joulepath_operator.figures.joining import complete_blocks
from joulepath_operator.figures.savings import WIDER, figure, t_quantile

__all__ = ["TRIAL_BLOCKS", "is_tried", "neighbours_mhz", "switching_cost", "trial"]

TRIAL_BLOCKS: Final = 8
"""Iterations that vary by 0.2% tell the cost to a quarter of a percent of an iteration then."""
_LEAST_FREE: Final = 3
"""Blocks beyond one of each sort and clock, by which it can be told how sure the cost is: one block may be lost."""


def neighbours_mhz(supported_mhz: Sequence[int], default_mhz: int, lowest_mhz: float) -> tuple[int, int] | None:
    """The two highest clocks under that where the GPUs settle; None where they may not be held."""
    below = sorted({clock for clock in supported_mhz if lowest_mhz <= clock < default_mhz}, reverse=True)
    return (below[0], below[1]) if len(below) > 1 else None


def trial(last: Sweep, clocks_mhz: tuple[int, int], seed: str) -> Sweep:
    """The round that tries it, in the place of the one that would follow on `last`. seed: what its order is drawn
    from."""
    chance, pairs = random.Random(seed), list(clocks_mhz) * (TRIAL_BLOCKS // 4)
    chance.shuffle(pairs)
    blocks = list[tuple[int, int]]()
    for clock in pairs:
        two = [(clock, clock), (clock, sum(clocks_mhz) - clock)]
        chance.shuffle(two)
        blocks += two
    update = {"clocks_mhz": tuple(one for one, _ in blocks), "to_and_fro_mhz": tuple(other for _, other in blocks)}
    return last.model_copy(update=update)


def is_tried(plan: JobPlanSpec, ranks: Sequence[RankReport]) -> bool:
    """Whether all blocks of a round that tries it are measured; true of a round that doesn't."""
    sweep = plan.sweep
    return sweep is None or not sweep.to_and_fro_mhz or len(complete_blocks(plan.hash, ranks)) >= len(sweep.clocks_mhz)


def switching_cost(plan: JobPlanSpec, ranks: Sequence[RankReport]) -> SwitchingCost | None:
    """What it was in this round; None where it didn't try it, or too few of its blocks are whole: agents that can't
    switch in a block hold a clock, which isn't taken for switches that cost nothing."""
    sweep = plan.sweep
    if sweep is None or not sweep.to_and_fro_mhz:
        return None
    found: dict[tuple[bool, int], list[tuple[float, float]]] = {}
    blocks = complete_blocks(plan.hash, ranks)
    usual = mode(block.sorts for block in blocks.values()) if blocks else ()
    for index, block in blocks.items():
        if (
            block.sorts == usual
            and index < len(sweep.clocks_mhz)
            and block.switched is (held_clock_mhz(sweep, index) is None)
        ):
            found.setdefault((block.switched, sweep.clocks_mhz[index]), []).append((block.time_s, block.energy_j))
    high, low = sorted(set(sweep.clocks_mhz), reverse=True)
    sorts = len({(switches, clock) for switches in (True, False) for clock in (high, low)} & found.keys())
    if sorts < 4 or sum(map(len, found.values())) < sorts + _LEAST_FREE:
        return None
    (longer_s, half_s), (more_j, half_j) = (
        _contrast({sort: [block[of] for block in blocks] for sort, blocks in found.items()}) for of in (0, 1)
    )
    return SwitchingCost(
        clocks_mhz=(high, low),
        longer_s=figure(longer_s),
        longer_half_s=figure(half_s),
        more_j=figure(more_j),
        more_half_j=figure(half_j),
    )


def _contrast(found: dict[tuple[bool, int], list[float]]) -> tuple[float, float]:
    """How much more it is where clocks switch, and half the 95% interval of that."""
    share = {switches: 1 / sum(one is switches for one, _ in found) for switches in (True, False)}
    weights = {sort: share[sort[0]] * (1 if sort[0] else -1) for sort in found}
    means = {sort: fmean(values) for sort, values in found.items()}
    free = sum(len(values) - 1 for values in found.values())
    scatter = sum((value - means[sort]) ** 2 for sort, values in found.items() for value in values) / free
    error = sqrt(scatter * sum(weights[sort] ** 2 / len(values) for sort, values in found.items()))
    return sum(weights[sort] * mean for sort, mean in means.items()), WIDER * t_quantile(free) * error
