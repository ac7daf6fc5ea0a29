"""Observes a loop that tells of itself, by the functions of `joulepath_trainer.loop`.

What it tells wins over what the other adapters see within it: an iteration is the loop's own, and so is an instruction.
"""

from __future__ import annotations

from joulepath_trainer.frameworks.steps import Steps
from joulepath_trainer.identity import Work
from joulepath_trainer.session import BegunInstruction

__all__ = ["LoopSteps"]


class LoopSteps:
    """The iterations of such a loop."""

    def __init__(self, steps: Steps) -> None:
        """Nothing is observed before the loop has been described."""
        self._steps = steps
        self._work: Work | None = None
        self._begun = False

    def describe(self, work: Work) -> None:
        """What iterations train from now on."""
        self._work = work

    def begin(self) -> bool:
        """An iteration begins; whether its end is awaited: one within another isn't seen."""
        if self._begun:
            return False
        self._begun = self._steps.begin(lambda: self._work)
        return self._begun

    def end(self, whole: bool) -> None:
        """An iteration has ended; not `whole` if by an exception."""
        self._begun = False
        self._steps.end(whole)

    def begin_instruction(self, kind: str, stage: int, microbatch: int) -> BegunInstruction | None:
        """An instruction begins; None outside of an iteration that is observed, and within another one."""
        if not self._begun:
            return None
        token = self._steps.begin_instruction(lambda: (kind, stage, microbatch))
        if token is not None:
            self._steps.marking = False
        return token

    def end_instruction(self, token: BegunInstruction | None) -> None:
        """It has ended."""
        if token is not None:
            self._steps.end_instruction(token)
            self._steps.marking = self._begun

    def spoil(self) -> None:
        """Something in this iteration can't be told."""
        if self._begun:
            self._steps.spoil()
