"""How much of a sweep of clocks is measured, and whether more is to come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from joulepath_crds import JobPlanSpec, RankReport, Sweep
from joulepath_operator.figures.clocks import swept
from joulepath_operator.figures.order import counted

__all__ = ["Coverage", "coverage", "is_over", "lost_mhz"]

_PATIENCE_BLOCKS: Final = 2


@dataclass(frozen=True, slots=True)
class Coverage:
    """Whether a round is measured. `fewest`: clocks of all rounds, of the kind, on the rank, that has the fewest; 0
    where one has none at default clocks."""

    complete: bool
    fewest: int


def coverage(ranks: Sequence[RankReport], sweep: Sweep) -> Coverage:
    """What the ranks have measured of a sweep, each kind that they run by itself."""
    wanted, ever = set(sweep.clocks_mhz), set(swept(sweep))
    counts, missing = [], False
    for known in _known_mhz(ranks):
        for clocks in known:
            counts.append(len(clocks & ever) if 0 in clocks else 0)
            missing |= not wanted <= clocks
        if not known:
            counts.append(0)
    fewest = min(counts, default=0)
    return Coverage(complete=fewest > 0 and not missing, fewest=fewest)


def lost_mhz(ranks: Sequence[RankReport], sweep: Sweep) -> tuple[int, ...]:
    """Clocks that one block of the rounds so far had and that a rank doesn't know, highest first: its agent was started
    anew since, or the block's iterations were spoiled."""
    blocks = swept(sweep)
    once = {clock for clock in blocks if clock and blocks.count(clock) == 1}
    known_to_all = once.intersection(*(clocks for known in _known_mhz(ranks) for clocks in known))
    return tuple(sorted(once - known_to_all, reverse=True))


def _known_mhz(ranks: Sequence[RankReport]) -> Iterator[list[set[int]]]:
    """Of each rank, for each kind of each stage that it runs, the clocks at which it is measured."""
    for rank, runs in zip(ranks, counted(ranks), strict=True):
        clocks: dict[tuple[int, str], set[int]] = {work: set() for work in runs}
        for one in rank.instructions:
            if one.known and (found := clocks.get((one.stage, one.kind))) is not None:
                found.add(one.clock_mhz)
        yield list(clocks.values())


def is_over(plan: JobPlanSpec, ranks: Sequence[RankReport]) -> bool:
    """Whether the last block is so long past that what is not measured by now won't be."""
    if plan.activate_at is None or plan.sweep is None:
        return False
    blocks = len(plan.sweep.clocks_mhz) + _PATIENCE_BLOCKS
    end = plan.activate_at + blocks * plan.sweep.iterations_per_block
    return all(rank.iteration >= end for rank in ranks)
