"""The training steps of this process's pipeline, as its adapter tells of them: whatever goes wrong, training goes on.

The pipeline of the first training step is the one that is observed. Steps of one that differs from it (in schedule,
stages, microbatches or ranks) are neither marked nor counted; on every rank alike.
"""

from __future__ import annotations

from collections.abc import Callable

from joulepath_trainer.identity import Work
from joulepath_trainer.observer import Observer
from joulepath_trainer.session import BegunInstruction

__all__ = ["Steps"]


class Steps:
    """One step at a time, and the instructions in it. No method raises."""

    def __init__(self, observer: Observer, on_first: Callable[[], None]) -> None:
        """Args:
        observer: Is told of every step.
        on_first: Called at the first training step of a pipeline, before it is observed.
        """
        self._observer = observer
        self._on_first = on_first
        self._work: Work | None = None
        self._in_step = False
        self.marking = False
        """Whether instructions are asked for: within a step that is observed."""

    def begin(self, recognise: Callable[[], Work | None]) -> bool:
        """A step may begin; whether it does, and is to be ended.

        Args:
            recognise: What it trains; None where it doesn't. Not asked within another step.
        """
        try:
            if self._observer.off or self._in_step or (work := recognise()) is None:
                return False
            if self._work is None:
                self._on_first()
                self._work = work
            elif work != self._work:
                return False
            self._in_step = True
            self.marking = bool(self._observer.begin_step(work))
            return True
        except Exception as error:
            self._observer.switch_off(error)
            return False

    def end(self, whole: bool) -> None:
        """The step has ended; not `whole` if by an exception."""
        self._in_step = self.marking = False
        self._observer.end_step(whole)

    def begin_instruction(self, name: Callable[[], tuple[str, int, int]]) -> BegunInstruction | None:
        """An instruction begins; the token is for `end_instruction`.

        Args:
            name: Its kind, stage and microbatch.
        """
        if not self.marking:
            return None
        try:
            return self._observer.begin_instruction(*name())
        except Exception as error:
            self._observer.switch_off(error)
            return None

    def end_instruction(self, token: BegunInstruction) -> None:
        """An instruction has ended."""
        self._observer.end_instruction(token)
