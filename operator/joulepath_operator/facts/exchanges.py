"""When what a rank made leaves for another rank, and when what it takes from one is awaited.

As a rule the first is when the instruction ends, the second right before the one that takes it begins. A framework that
runs a forward and a backward as one step sends, or awaits, nothing between the two. Where it does so follows from the
kinds of an instruction and the one behind it, on every rank alike. And some wait until what they have sent is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from joulepath_crds import Instruction

__all__ = ["Exchanges", "Neighbours", "Way"]

Neighbours: TypeAlias = tuple[str, str]
"""The kinds of an instruction and of the one behind it on its rank, all pairs as one."""

Way: TypeAlias = tuple[int, int]
"""The stages that send and receive."""


@dataclass(frozen=True, slots=True)
class Exchanges:
    """Between which neighbours nothing is sent, and between which nothing is awaited; and on which ways what is sent
    holds up its rank until the other does nothing but await it."""

    unsent: frozenset[Neighbours] = frozenset()
    unawaited: frozenset[Neighbours] = frozenset()
    held: frozenset[Way] = frozenset()

    @staticmethod
    def neighbours(one: Instruction, behind: Instruction) -> Neighbours:
        """What counts of an instruction and the one behind it."""
        return one.mark.kind, behind.mark.kind

    def sent_after(self, order: Sequence[Instruction]) -> dict[Instruction, Instruction]:
        """For each instruction of a rank the one at whose end leaves what it made: itself, or one behind it."""
        found: dict[Instruction, Instruction] = {}
        for at in range(len(order) - 1, -1, -1):
            later = at + 1 < len(order) and self.neighbours(order[at], order[at + 1]) in self.unsent
            found[order[at]] = found[order[at + 1]] if later else order[at]
        return found

    def awaited_before(self, order: Sequence[Instruction]) -> dict[Instruction, Instruction]:
        """For each instruction of a rank the one before whose begin has come what it takes: itself, or one before."""
        found: dict[Instruction, Instruction] = {}
        for at, one in enumerate(order):
            sooner = at > 0 and self.neighbours(order[at - 1], one) in self.unawaited
            found[one] = found[order[at - 1]] if sooner else one
        return found

    def written(self, order: Sequence[Instruction]) -> tuple[str, ...]:
        """The order of a rank as the planner reads it: `<1:B0 1:F4 1:B0 >1:F4`; `>>1:F4` where that is held."""
        sent, awaited = self.sent_after(order), self.awaited_before(order)
        words: dict[Instruction, list[str]] = {one: [one.label] for one in order}
        for one in reversed(order):
            if awaited[one] != one:
                words[awaited[one]].insert(0, f"<{one.label}")
        for one in order:
            ways = {
                (half.stage, half.stage + (1 if half.kind == "F" else -1)) for half in one.halves if half.kind in "FBI"
            }
            if ways & self.held:
                words[sent[one]].append(f">>{one.label}")
            elif sent[one] != one:
                words[sent[one]].append(f">{one.label}")
        return tuple(word for one in order for word in words[one])
