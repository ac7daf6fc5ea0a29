"""How much of a sweep of clocks is measured, and whether more is to come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from joulepath_crds import JobPlanSpec, RankReport, Sweep
from joulepath_operator.figures.clocks import swept
from joulepath_operator.figures.order import executed

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
    for rank in ranks:
        run = {(one.stage, one.kind) for one in executed(rank)}
        for work in run:
            clocks = {one.clock_mhz for one in rank.instructions if one.known and (one.stage, one.kind) == work}
            counts.append(len(clocks & ever) if 0 in clocks else 0)
            missing |= not wanted <= clocks
        if not run:
            counts.append(0)
    fewest = min(counts, default=0)
    return Coverage(complete=fewest > 0 and not missing, fewest=fewest)


def lost_mhz(ranks: Sequence[RankReport], sweep: Sweep) -> tuple[int, ...]:
    """Clocks that one block of the rounds so far had and that a rank doesn't know, highest first: its agent was started
    anew since, or the block's iterations were spoiled."""
    blocks = swept(sweep)
    once = sorted({clock for clock in blocks if clock and blocks.count(clock) == 1}, reverse=True)
    return tuple(
        clock for clock in once if not coverage(ranks, sweep.model_copy(update={"clocks_mhz": (clock,)})).complete
    )


def is_over(plan: JobPlanSpec, ranks: Sequence[RankReport]) -> bool:
    """Whether the last block is so long past that what is not measured by now won't be."""
    if plan.activate_at is None or plan.sweep is None:
        return False
    blocks = len(plan.sweep.clocks_mhz) + _PATIENCE_BLOCKS
    end = plan.activate_at + blocks * plan.sweep.iterations_per_block
    return all(rank.iteration >= end for rank in ranks)
