"""What a rank computes, by name: kinds, labels, and the one place where a label is read."""

from __future__ import annotations

from typing import Final, NamedTuple, Self

__all__ = ["INSTRUCTION_KINDS", "Instruction"]

INSTRUCTION_KINDS: Final = "FBIW"
"""F forward, B full backward, I input gradient, W weight gradient. What else the planner knows is never measured."""


class Instruction(NamedTuple):
    """One computation of one microbatch on one stage."""

    stage: int
    kind: str
    microbatch: int

    @property
    def name(self) -> str:
        """Without its stage: `F0`."""
        return f"{self.kind}{self.microbatch}"

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
        told, colon, name = label.rpartition(":")
        if colon and _is_number(told) and stage in (None, int(told)):
            stage = int(told)
        elif colon or stage is None:
            raise ValueError(f"{label!r} names no stage, or another than it stands with; 3:F0 is one of stage 3")
        if name[:1] not in INSTRUCTION_KINDS or not _is_number(name[1:]):
            raise ValueError(
                f"{label!r} is no instruction; F0 or 3:F0 is one, of the kinds {', '.join(INSTRUCTION_KINDS)}"
            )
        return cls(stage, name[:1], int(name[1:]))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()
