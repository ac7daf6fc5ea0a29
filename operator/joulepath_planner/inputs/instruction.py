"""An instruction: one computation of one microbatch on one stage, its kind and how it is written.

Kinds: `F` forward, `B` full backward, `I` input gradient, `W` weight gradient, `C` recomputation of a forward,
`X` anything whose time no clock changes (loading data, a collective).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, TypeAlias

from joulepath_planner.arguments import fits, quoted
from joulepath_planner.errors import ScheduleError

__all__ = ["FIXED", "KINDS", "KIND_NAMES", "MOST_STAGES", "Instruction", "StageKind"]

KINDS: Final = ("F", "B", "I", "W", "C", "X")
FIXED: Final = "X"
MOST_STAGES: Final = 1024
_NAMES: Final = ("forward", "backward", "input", "weight", "recomputation", "fixed")
KIND_NAMES: Final = dict(zip(KINDS, _NAMES, strict=True))
_TEXT: Final = re.compile(rf"(?:(\d{{1,9}}):)?([{''.join(KINDS)}])(\d{{1,9}})", re.ASCII)

StageKind: TypeAlias = tuple[int, str]
"""A stage and a kind: what lasts equally long for every microbatch."""


@dataclass(frozen=True, slots=True, order=True)
class Instruction:
    """One computation of one microbatch on one stage; written `F0`, or `3:F0` with its stage. `KINDS` has the kinds."""

    stage: int
    kind: str
    microbatch: int

    def __str__(self) -> str:
        return f"{self.kind}{self.microbatch}"

    @property
    def label(self) -> str:
        return f"{self.stage}:{self}"

    @classmethod
    def parse(cls, text: str, stage: int | None = None) -> Instruction:
        """Read `F0` (the stage is then the argument) or `3:F0`.

        Raises:
            ScheduleError: It is written otherwise, or names no stage.
        """
        match = _TEXT.fullmatch(text.strip()) if isinstance(text, str) else None
        if match is None:
            raise ScheduleError(
                f"instruction {quoted(text)} is not understood; write it as B3, or as 2:B3 with its stage."
            )
        named, kind, microbatch = match.groups()
        if named is None and stage is None:
            raise ScheduleError(f"instruction {text!r} names no stage; write it as 2:{text.strip()}.")
        if not fits(stage, int | None):
            raise ScheduleError(f"stage is {quoted(stage)}; it must be a whole number.")
        return cls(int(named) if named is not None else int(stage or 0), kind, int(microbatch))
