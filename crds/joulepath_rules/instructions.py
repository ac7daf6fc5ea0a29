"""What a rank computes, by name: kinds, labels, and the one place where a label is read."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Self

__all__ = ["INSTRUCTION_KINDS", "PAIR", "PAIR_KIND", "Instruction"]

INSTRUCTION_KINDS: Final = "FBIW"
"""F forward, B full backward, I input gradient, W weight gradient. What else the planner knows is never measured."""
PAIR_KIND: Final = r"F&[0-9]{1,5}:B"
"""Of a pair: an F that runs interleaved with a B of this stage, which one rank has both. A kind of its own."""
PAIR: Final = "P"
"""How markers name that kind, which tell only which forward it is."""
_NAME: Final = re.compile(rf"([{INSTRUCTION_KINDS}])([0-9]+)|F([0-9]+)(&[0-9]{{1,5}}:B)([0-9]+)")


class Instruction(NamedTuple):
    """One computation of one microbatch on one stage; or a pair, which has the stage and microbatch of its forward."""

    stage: int
    kind: str
    microbatch: int
    back: int = 0
    """Of a pair, the microbatch of its backward."""

    @classmethod
    def pair(cls, forward: tuple[int, int], backward: tuple[int, int]) -> Self:
        """Of the stage and microbatch of both."""
        return cls(forward[0], f"F&{backward[0]}:B", forward[1], backward[1])

    @property
    def halves(self) -> tuple[Instruction, ...]:
        """What of it takes and makes a message: itself, or the forward and the backward of a pair."""
        if len(self.kind) == 1:
            return (self,)
        return Instruction(self.stage, "F", self.microbatch), Instruction(int(self.kind[2:-2]), "B", self.back)

    @property
    def mark(self) -> Instruction:
        """As markers name it."""
        return self if len(self.kind) == 1 else Instruction(self.stage, PAIR, self.microbatch)

    @property
    def name(self) -> str:
        """Without its stage: `F0`, or `F4&7:B1`."""
        first, _, second = self.kind.partition("&")
        return f"{first}{self.microbatch}&{second}{self.back}" if second else f"{first}{self.microbatch}"

    @property
    def label(self) -> str:
        """With its stage: `3:F0`."""
        return f"{self.stage}:{self.name}"

    @classmethod
    def parse(cls, label: str, stage: int | None = None) -> Self:
        """Reads `3:F0`, or `F0` where its stage is told beside it.

        Raises:
            ValueError: It is no label, or its stage is told nowhere, or twice and not alike.
        """
        first, pair, second = label.partition("&")
        told, colon, name = first.rpartition(":")
        if colon and _is_number(told) and stage in (None, int(told)):
            stage = int(told)
        elif colon or stage is None:
            raise ValueError(f"{label!r} names no stage, or another than it stands with; 3:F0 is one of stage 3")
        match = _NAME.fullmatch(name + pair + second)
        if match is None:
            raise ValueError(
                f"{label!r} is no instruction; F0 or 3:F0 is one, of the kinds {', '.join(INSTRUCTION_KINDS)}, "
                "and 3:F4&7:B1 a pair"
            )
        if match[1]:
            return cls(stage, match[1], int(match[2]))
        return cls(stage, f"F{match[4]}", int(match[3]), int(match[5]))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()
