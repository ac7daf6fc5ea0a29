"""A rank's iteration at default clocks as it reports it, packed: what delays are learnt from, in the planner's process.

A large pipeline has tens of thousands of instructions; as columns they take little time on their way there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from joulepath_crds import RankReport

__all__ = ["RankIteration"]


@dataclass(frozen=True, slots=True)
class RankIteration:
    """The columns are instructions by their begin, on the rank's own clock."""

    rank: int
    stages: tuple[int, ...]
    tail_s: float
    instructions: tuple[str, ...]
    stage_of: tuple[int, ...]
    begin_s: tuple[float, ...]
    end_s: tuple[float, ...]

    @classmethod
    def of(cls, rank: RankReport, most: int | None = None) -> Self:
        """most: how many of its instructions, the first ones."""
        timeline = sorted(rank.timeline, key=lambda one: one.begin_s)[:most]
        return cls(
            rank=rank.rank,
            stages=rank.stages,
            tail_s=rank.tail_s,
            instructions=tuple(one.instruction for one in timeline),
            stage_of=tuple(one.stage for one in timeline),
            begin_s=tuple(one.begin_s for one in timeline),
            end_s=tuple(one.end_s for one in timeline),
        )
