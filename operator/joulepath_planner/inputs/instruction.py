"""An instruction: one computation of one microbatch on one stage, its kind and how it is written.

Kinds: `F` forward, `B` full backward, `I` input gradient, `W` weight gradient, `C` recomputation of a forward,
`X` anything whose time no clock changes (loading data, a collective). A *pair*, an F and a B of one rank that run
interleaved, is one instruction with a kind of its own, `F&7:B` where the B is of stage 7: it has its own seconds and
joules, takes what both of its halves take, and sends what both make when it ends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from joulepath_planner.arguments import fits, quoted
from joulepath_planner.errors import ScheduleError

__all__ = ["FIXED", "KINDS", "KIND_NAMES", "MOST_STAGES", "Instruction", "StageKind", "is_pair", "kind_name"]

KINDS: Final = ("F", "B", "I", "W", "C", "X")
FIXED: Final = "X"
MOST_STAGES: Final = 1024
_NAMES: Final = ("forward", "backward", "input", "weight", "recomputation", "fixed")
KIND_NAMES: Final = dict(zip(KINDS, _NAMES, strict=True))
_TEXT: Final = re.compile(
    rf"(?:(\d{{1,9}}):)?([{''.join(KINDS)}])(\d{{1,9}})(?:&(?:(\d{{1,9}}):)?B(\d{{1,9}}))?", re.ASCII
)
_PAIR: Final = re.compile(r"F&\d{1,9}:B", re.ASCII)

StageKind: TypeAlias = tuple[int, str]
"""A stage and a kind: what lasts equally long for every microbatch."""


@dataclass(frozen=True, slots=True, order=True)
class Instruction:
    """One computation of one microbatch on one stage; written `F0`, or `3:F0` with its stage. `KINDS` has the kinds.

    A pair, `3:F4&7:B1`, has the stage and microbatch of its forward; back: the microbatch of its backward.
    """

    stage: int
    kind: str
    microbatch: int
    back: int = 0

    def __str__(self) -> str:
        first, _, second = self.kind.partition("&")
        return f"{first}{self.microbatch}&{second}{self.back}" if second else f"{first}{self.microbatch}"

    @property
    def label(self) -> str:
        return f"{self.stage}:{self}"

    @property
    def halves(self) -> tuple[Instruction, ...]:
        """What takes and makes messages: the instruction itself, or the forward and the backward of a pair."""
        if not is_pair(self.kind):
            return (self,)
        return Instruction(self.stage, "F", self.microbatch), Instruction(int(self.kind[2:-2]), "B", self.back)

    @classmethod
    def parse(cls, text: str, stage: int | None = None) -> Instruction:
        """Read `F0` (the stage is then the argument) or `3:F0`; of a pair that tells no second stage it is the first.

        Raises:
            ScheduleError: It is written otherwise, or names no stage.
        """
        match = _TEXT.fullmatch(text.strip()) if isinstance(text, str) else None
        if match is None or (match[5] and match[2] != "F"):
            raise ScheduleError(
                f"instruction {quoted(text)} is not understood; write it as B3, or as 2:B3 with its stage."
            )
        named, kind, microbatch, second, back = match.groups()
        if named is None and stage is None:
            raise ScheduleError(f"instruction {text!r} names no stage; write it as 2:{text.strip()}.")
        if not fits(stage, int | None):
            raise ScheduleError(f"stage is {quoted(stage)}; it must be a whole number.")
        first = int(named) if named is not None else int(stage or 0)
        if back is None:
            return cls(first, kind, int(microbatch))
        return cls(first, f"F&{first if second is None else int(second)}:B", int(microbatch), int(back))


def is_pair(kind: str) -> bool:
    """Whether a kind is that of pairs."""
    return isinstance(kind, str) and len(kind) > 1 and _PAIR.fullmatch(kind) is not None


def kind_name(kind: str) -> str:
    """A kind in words."""
    return f"a forward with a backward of stage {kind[2:-2]}" if is_pair(kind) else KIND_NAMES[kind]
