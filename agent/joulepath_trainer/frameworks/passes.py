"""What a rank without a pipeline runs in an iteration: forward and backward in turn, once a microbatch.

Facts about torch (2.7 to 2.15, read in its source):

- `Tensor.backward` looks `torch.autograd.backward` up when it is called, so what stands there is what runs. It returns
  when all is enqueued, the collectives of DDP and FSDP with it, and the current stream waits for them.
- Activation checkpoints may call it within itself, from another thread.
- `Module.eval` is how an evaluation begins; it then goes through the modules by `train(False)`. One that is compiled
  isn't seen.

A forward begins with the iteration or after the backward before, so that loading data is a part of it. After the last
backward comes the optimizer. Which one is the last, the iterations before tell: where their number varies, as with
closures of LBFGS, a backward is all from the first one's begin to the end of the iteration. An iteration that has more
of them than usual or fewer (its step is skipped by a GradScaler, an epoch ends), or in which an evaluation begins, is
over there: there is no record of it, and the rest runs at default clocks.

What another thread does than that of the optimizer's steps is no part of this loop. Optimizers that step within a
backward (one for each parameter) leave nothing to tell but iterations.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from threading import get_ident
from types import ModuleType
from typing import Any, Final, TypeVar

from joulepath_trainer.frameworks.compiling import preceded
from joulepath_trainer.identity import single_stage_work
from joulepath_trainer.observer import Observer
from joulepath_trainer.session import BegunInstruction

__all__ = ["Passes"]

_T = TypeVar("_T")
_VARYING: Final = 0
_UNSEEN: Final = -1
"""What is told where the number of backwards isn't."""
_SCHEDULES: Final = {_VARYING: "VaryingBackwards", _UNSEEN: "IterationsOnly"}
_FIRST: Final = 2
"""Iterations that have to agree at the start; what comes before the first step may be anything."""
_PATIENCE: Final = 3
"""Iterations in a row that differ alike from what is told, before that is told."""
_MEMORY: Final = 8
_USUAL: Final = 6
"""Of so many iterations, those that have to be as told; where their number varies, all have to be alike."""
_MOST_CHANGES: Final = 3
"""How often something else is told: each time the job is profiled anew."""


class Passes:
    """The instructions of one iteration after the other. Nothing is raised but what the training itself raises."""

    def __init__(self, observer: Observer) -> None:
        """Args:
        observer: Is told of them.
        """
        self._observer = observer
        self._counts: deque[int] = deque(maxlen=_MEMORY)
        """Backwards of the last iterations since something else was told."""
        self._ran = 0
        """Backwards in this one."""
        self._told: int | None = None
        """How many an iteration is told to have, or what else; None before the first that is."""
        self._changes = 0
        self._instruction: BegunInstruction | None = None
        """The one that runs."""
        self._in_step = self._within = False
        self._thread: int | None = None
        """That of the optimizer's steps; None before the first."""

    def observe_autograd(self, module: ModuleType) -> None:
        """Wraps the backward; for `torch.autograd`."""
        original = module.backward

        @functools.wraps(original)
        def backward(*args: Any, **kwargs: Any) -> Any:
            return self.run(lambda: original(*args, **kwargs))

        backward._torchdynamo_disable = True  # type: ignore[attr-defined]
        module.backward = backward  # type: ignore[attr-defined]

    def observe_modules(self, module: ModuleType) -> None:
        """Wraps how an evaluation begins; for `torch.nn.modules.module`."""
        module.Module.eval = preceded(module.Module.eval, self.evaluate, module)

    def run(self, backward: Callable[[], _T]) -> _T:
        """Runs a backward, torch's or that of an engine which has its own."""
        if self._within or self._elsewhere():
            return backward()
        self._guarded(self._begin_backward)
        self._within = True
        try:
            return backward()
        finally:
            self._within = False
            self._guarded(self._end_backward)

    def turn(self, device: str, observed: bool, skipped: bool = False) -> None:
        """An iteration has ended and the next one begins.

        Args:
            device: The torch device that computes: cpu, cuda:1, ...
            observed: Whether that one is told; before, iterations are only counted.
            skipped: Whether the one that has ended made no step of the optimizer.
        """
        self._thread = get_ident()
        self._end(whole=not skipped)
        self._counts.append(0 if self._within else self._ran)
        self._ran = 0
        if not observed:
            self._observer.count_step()
            return
        told = self._settle()
        work = single_stage_work(device, _SCHEDULES.get(told, "NoPipeline"), max(1, told))
        self._in_step = bool(self._observer.begin_step(work))
        if told != _UNSEEN:
            self._begin("F", 0)

    def forget(self) -> None:
        """There is a pipeline, or what is trained is another thing: begins anew."""
        self._in_step, self._instruction, self._told = False, None, None
        self._counts.clear()

    def _settle(self) -> int:
        """What is told of the next iteration: as the last ones were."""
        if self._told is None:
            self._told = _alike(list(self._counts)[-_FIRST:])
            self._counts.clear()
        elif (now := self._fitting(list(self._counts), self._told)) != self._told:
            self._told = now
            self._changes += 1
            self._counts.clear()
            self._observer.restart()
        return self._told

    def _fitting(self, last: list[int], told: int) -> int:
        whole = len(last) == _MEMORY
        lately = _alike(last[-_PATIENCE:]) if len(last) >= _PATIENCE else told
        if told == _VARYING:
            now = _alike(last) if whole else told
        elif lately not in (told, _VARYING):
            now = lately
        else:
            now = _VARYING if whole and last.count(max(told, 0)) < _USUAL else told
        return now if self._changes < _MOST_CHANGES or now == told else _VARYING

    def _begin_backward(self) -> None:
        self._ran += 1
        if not self._in_step or self._told == _UNSEEN or (self._told == _VARYING and self._ran > 1):
            return
        if self._told and self._ran > self._told:
            self._break_off()
            return
        self._finish()
        self._begin("B", self._ran - 1)

    def _end_backward(self) -> None:
        if not self._in_step or not self._told or self._told == _UNSEEN:
            return
        self._finish()
        if self._ran < self._told:
            self._begin("F", self._ran)

    def evaluate(self) -> None:
        """An evaluation begins."""
        if not self._elsewhere() and self._observer.evaluate():
            self._guarded(self._break_off)

    def _begin(self, kind: str, microbatch: int) -> None:
        self._instruction = self._observer.begin_instruction(kind, 0, microbatch) if self._in_step else None

    def _finish(self) -> None:
        instruction, self._instruction = self._instruction, None
        if instruction is not None:
            self._observer.end_instruction(instruction)

    def _end(self, whole: bool) -> None:
        """The iteration ends with its optimizer's step."""
        if self._told == _VARYING and self._ran:
            self._finish()
        if self._in_step:
            self._in_step = False
            self._observer.end_step(whole and self._instruction is None)

    def _break_off(self) -> None:
        """The iteration isn't as usual."""
        self._instruction = None
        if self._in_step:
            self._in_step = False
            self._observer.end_step(False)

    def _elsewhere(self) -> bool:
        return self._thread not in (None, get_ident())

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            self._observer.switch_off(error)


def _alike(counts: list[int]) -> int:
    """The number of backwards that these iterations share."""
    return (counts[0] or _UNSEEN) if len(set(counts)) == 1 else _VARYING
