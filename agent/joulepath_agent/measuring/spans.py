"""When each instruction of an iteration ran, as arrays: what is kept of a record, and how many bytes that takes.

The instructions of all iterations of a job are the same, so they are kept once, and of each iteration only its times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from joulepath_crds import Instruction
from joulepath_trainer.wire.messages import InstructionSpan
from joulepath_trainer.wire.protocol import PAIR

__all__ = ["KnownSteps", "Regressor", "Spans", "Steps", "instruction_of"]

Regressor = tuple[int, str]
"""A stage and a kind of instruction; or, of power, WAIT or TAIL."""
_STEP_BYTES: Final = 200
_SPANS_BYTES: Final = 400
_MOST_KNOWN: Final = 4
"""Lists of instructions that are kept once: those of training, of a last batch that is smaller."""


def instruction_of(span: InstructionSpan) -> Instruction:
    """What ran, by name."""
    if span.kind == PAIR:
        return Instruction.pair((span.stage, span.microbatch), span.back)
    return Instruction(span.stage, span.kind, span.microbatch)


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """The instructions of an iteration, sorted."""

    instructions: tuple[Instruction, ...]
    regressors: tuple[Regressor, ...]
    """Their stages and kinds, each once, sorted."""
    column: NDArray[np.intp]
    """Which of these each instruction has."""

    @classmethod
    def of(cls, instructions: tuple[Instruction, ...]) -> Steps:
        """Of these, which are sorted."""
        regressors = tuple(sorted({(one.stage, one.kind) for one in instructions}))
        index = {regressor: at for at, regressor in enumerate(regressors)}
        column = np.array([index[one.stage, one.kind] for one in instructions], dtype=np.intp)
        return cls(instructions, regressors, column)


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """When the instructions of one iteration ran."""

    steps: Steps
    times_s: NDArray[np.float64]
    """Begin and end of each, in the order of `steps`, seconds from the begin of the iteration."""
    bytes: int
    """What it keeps in memory."""

    @property
    def last_end_s(self) -> float:
        """End of the last one."""
        return float(self.times_s[:, 1].max())

    def within(self, period_s: float) -> Spans:
        """The same, cut to an iteration of so many seconds."""
        return replace(self, times_s=np.minimum(np.maximum(self.times_s, 0.0), period_s))


class KnownSteps:
    """The last few lists of instructions, so that iterations share them."""

    def __init__(self) -> None:
        self._known: dict[bytes, Steps] = {}

    def __contains__(self, steps: Steps) -> bool:
        return any(one is steps for one in tuple(self._known.values()))

    def spans(self, told: Sequence[InstructionSpan]) -> Spans:
        """What is kept of the instructions of a record; there is at least one."""
        codes = np.array([one.stage << 24 | ord(one.kind) << 16 | one.microbatch for one in told])
        backs = np.array([one.back[0] << 16 | one.back[1] for one in told])
        sorting = np.lexsort((backs, codes))
        key = codes[sorting].tobytes() + backs[sorting].tobytes()
        steps = self._known.pop(key, None)
        own = 0 if steps is not None else _STEP_BYTES * len(told)
        if steps is None:
            ran = [told[at] for at in sorting.tolist()]
            steps = Steps.of(tuple(map(instruction_of, ran)))
        self._known[key] = steps
        if len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        times_s = np.array([(one.begin_s, one.end_s) for one in told])[sorting]
        return Spans(steps, times_s, times_s.nbytes + _SPANS_BYTES + own)
