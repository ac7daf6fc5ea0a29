"""The training steps of this process's pipeline, as its adapter tells of them: whatever goes wrong, training goes on.

One pipeline at a time is observed. Steps of one that differs from it (in model, schedule, stages, microbatches or
ranks) are neither marked nor counted, on every rank alike; a few of them without one of the first, and that one is
observed from then on, as where the number of microbatches grows in the course of a training. Of pipelines that take
turns, as an actor and a critic do, one is observed in the end: whenever one comes back, more is waited for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

from joulepath_trainer.frameworks.rounds import Skips
from joulepath_trainer.identity import Work
from joulepath_trainer.observer import Observer
from joulepath_trainer.session import BegunInstruction
from joulepath_trainer.wire.protocol import PAIR

__all__ = ["Name", "Steps", "pair"]

_PATIENCE: Final = 3
_T = TypeVar("_T")

Name: TypeAlias = tuple[str, int, int, tuple[int, int]] | tuple[str, int, int]
"""Kind, stage and microbatch of an instruction, and of a pair those of its backward."""


def pair(forward: tuple[int, int], backward: tuple[int, int]) -> Name:
    """The name of a forward and a backward that run interleaved, by the stage and microbatch of each."""
    return PAIR, *forward, backward


class Steps:
    """One step at a time, and the instructions in it. Nothing is raised but what the training itself raises."""

    def __init__(self, observer: Observer, skips: Skips, on_step: Callable[[], None]) -> None:
        """Args:
        observer: Is told of every step.
        skips: Is told of the optimizer's.
        on_step: Called at each training step of a pipeline, before it is observed.
        """
        self._observer, self._skips = observer, skips
        self._on_step = on_step
        self._work: Work | None = None
        self._others: Counter[Work] = Counter()
        """Steps of others since the last of that one."""
        self._before: list[Work] = []
        """What was observed earlier."""
        self._patience = _PATIENCE
        self._in_step = self._spoiled = False
        self._whole = False
        """Whether the last one was: else nobody expects the optimizer's."""
        self._open: BegunInstruction | None = None
        self.marking = False
        """Whether instructions are asked for: within a step that is observed, and not in another one within that."""

    def run(self, recognise: Callable[[], Work | None], step: Callable[[], _T]) -> _T:
        """Runs what may be a training step.

        Args:
            recognise: What it trains; None where it doesn't. Not asked within another step.
            step: Runs it.
        """
        if not self.begin(recognise):
            marking, self.marking = self.marking, False
            try:
                return step()
            finally:
                self.marking = marking and not self._spoiled
        whole = False
        try:
            result = step()
            whole = True
            return result
        finally:
            self.end(whole)

    @property
    def running(self) -> bool:
        """Whether a step has begun."""
        return self._in_step

    def end(self, whole: bool = True) -> None:
        """A step that has begun ends; not `whole` if by an exception."""
        if self._in_step:
            self.end_open()
            self._in_step = self.marking = False
            self._whole = whole
            self._observer.end_step(whole, told=not self._spoiled)

    def run_instruction(
        self,
        name: Callable[[], Name],
        instruction: Callable[[], _T],
        *,
        open_ended: Callable[[], bool] = lambda: False,
    ) -> _T:
        """Runs an instruction; `name` tells its kind, stage and microbatch, `open_ended` whether it has an open end.

        Such a one lasts until `end_open`, or until the next one begins.
        """
        token = self.begin_instruction(name)
        if token is None:
            return instruction()
        try:
            result = instruction()
        except BaseException:
            self.end_instruction(token)
            raise
        try:
            self._open = token if open_ended() else None
        except Exception as error:
            self._observer.switch_off(error)
            return result
        if self._open is None:
            self.end_instruction(token)
        return result

    def end_open(self) -> None:
        """The end of an instruction that was left open, if one was."""
        token, self._open = self._open, None
        if token is not None:
            self.end_instruction(token)

    def end_instruction(self, token: BegunInstruction) -> None:
        """The end of one that has begun."""
        self._observer.end_instruction(token)

    def spoil(self) -> None:
        """What runs in this step can't be told: there will be no record of it."""
        self.marking, self._spoiled = False, self._in_step

    def evaluate(self) -> None:
        """An evaluation begins, perhaps in the midst of a step."""
        if self._work is not None:
            self._observer.evaluate()

    def switch_off(self, error: Exception) -> None:
        """Nothing is observed any more."""
        self._observer.switch_off(error)

    def begin(self, recognise: Callable[[], Work | None]) -> bool:
        """What may be a training step begins; whether it is one, and observed, so that `end` is awaited."""
        try:
            if self._observer.off or self._in_step:
                return False
            if (work := recognise()) is None:  # an evaluation, by a pipeline that trains else
                self.evaluate()
                return False
            self._on_step()
            observed = self._is_observed(work)
            if (self._whole and self._skips.turn()) or not observed:
                self._observer.part()
            if not observed:
                return False
            self._in_step, self._spoiled = True, False
            self.marking = bool(self._observer.begin_step(work))
            return True
        except Exception as error:
            self._observer.switch_off(error)
            return False

    def _is_observed(self, work: Work) -> bool:
        if work == self._work:
            self._others.clear()
            return True
        self._others[work] += 1
        if self._work is not None:
            if self._others[work] < self._patience:
                return False
            self._observer.restart()
            self._patience *= 2 if work in self._before else 1
            self._before.append(self._work)
        self._work = work
        self._others.clear()
        return True

    def begin_instruction(self, name: Callable[[], Name]) -> BegunInstruction | None:
        """The begin of an instruction, for `end_instruction`; None outside of an observed step."""
        self.end_open()
        if not self.marking:
            return None
        try:
            return self._observer.begin_instruction(*name())
        except Exception as error:
            self._observer.switch_off(error)
            return None
