"""Blocks of a plan, all ranks together; and of one look to the next, only what has changed.

A block counts only when every rank has measured it, in the same arm. Its energy is the sum over the GPUs of the job,
its time the mean over the ranks (they wait for each other, so that they agree).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

from joulepath_crds import Arm, BlockReport, RankReport, Sort

__all__ = ["Join", "JoinedBlock", "KeptBlocks", "complete_blocks"]


@dataclass(frozen=True, slots=True)
class JoinedBlock:
    """One block, all ranks together: seconds of an iteration, their standard deviation, and joules."""

    arm: Arm
    iterations: int
    time_s: float
    energy_j: float
    deviation_s: float = 0.0
    sorts: tuple[Sort, ...] = (Sort.WHOLE,)
    """Of each rank's iterations, or of all: there may be ranks that evaluate, and others that don't."""
    switched: bool = False
    """Of all ranks, whether clocks went to and fro with each instruction."""


Join: TypeAlias = Callable[[str, Sequence[RankReport]], Mapping[int, JoinedBlock]]
"""From a plan's hash and its ranks to the blocks that all of them have measured alike, by index."""


def complete_blocks(plan_hash: str, ranks: Sequence[RankReport]) -> Mapping[int, JoinedBlock]:
    """Those of a plan by index that every rank has measured alike."""
    return KeptBlocks()(plan_hash, ranks)


class KeptBlocks:
    """The same, for the looks at one job: of a large one ranks keep millions of blocks, and seldom there is a new one.

    What a rank tells is told apart by the object that it is: as long as that is the same, nothing of it is looked at.
    """

    def __init__(self) -> None:
        self._forget("")

    def __call__(self, plan_hash: str, ranks: Sequence[RankReport]) -> Mapping[int, JoinedBlock]:
        if plan_hash != self._hash:
            self._forget(plan_hash)
        self._look(ranks)
        if len(self._told) != len(ranks):  # others are gone
            self._forget(plan_hash)
            self._look(ranks)
        for index, ranks_with_it in self._measured.items():
            if ranks_with_it == len(ranks) and index not in self._joined:
                self._joined[index] = _join([self._of_rank[rank.rank][index] for rank in ranks])
        common = ((index, one) for index, one in self._joined.items() if self._measured[index] == len(ranks))
        return {index: block for index, block in common if block is not None}

    def _forget(self, plan_hash: str) -> None:
        self._hash = plan_hash
        self._told: dict[int, Sequence[BlockReport]] = {}
        self._of_rank: dict[int, dict[int, BlockReport]] = {}
        self._measured = Counter[int]()
        self._joined: dict[int, JoinedBlock | None] = {}

    def _look(self, ranks: Sequence[RankReport]) -> None:
        for rank in ranks:
            if self._told.get(rank.rank) is not rank.blocks:
                self._take_in(rank)

    def _take_in(self, rank: RankReport) -> None:
        old, new = self._of_rank.get(rank.rank, {}), {one.block: one for one in rank.blocks if one.hash == self._hash}
        for index in old.keys() | new.keys():
            if old.get(index) != new.get(index):
                self._joined.pop(index, None)
                self._measured[index] += (index in new) - (index in old)
        self._of_rank[rank.rank], self._told[rank.rank] = new, rank.blocks


def _join(reports: Sequence[BlockReport]) -> JoinedBlock | None:
    first = reports[0]
    if any(one.arm is not first.arm or not one.iterations or not one.iteration_time_s for one in reports):
        return None
    sorts = tuple(one.sort for one in reports)
    energy = sum(one.energy_per_iteration_j for one in reports)
    if energy <= 0:
        return None
    return JoinedBlock(
        arm=first.arm,
        iterations=min(one.iterations for one in reports),
        time_s=fmean(one.iteration_time_s for one in reports),
        energy_j=energy,
        deviation_s=fmean(one.iteration_time_deviation_s for one in reports),
        sorts=sorts if len(set(sorts)) > 1 else sorts[:1],
        switched=all(one.switched for one in reports),
    )
