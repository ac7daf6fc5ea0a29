"""Observes a training without a pipeline: from one step of its optimizer to the next is one iteration.

Torch has a hook for it that runs after the step of every optimizer (`register_optimizer_step_post_hook`). The first
optimizer that steps is the one that counts; a training with several of them steps the others just as often or seldom.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from joulepath_trainer.identity import single_stage_work
from joulepath_trainer.observer import Observer

__all__ = ["OptimizerSteps"]

_UNOBSERVED_STEPS: Final = 2
"""A pipeline trains before its optimizer first steps; a warm-up of two steps without one may come first."""


class OptimizerSteps:
    """The iterations of a training that has no pipeline."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._optimizer: Callable[[], object | None] | None = None
        self._steps = 0
        self._aside = False

    def observe(self, module: ModuleType) -> None:
        """Registers a hook; for `torch.optim.optimizer`."""

        def stepped(optimizer: Any, _args: object, _kwargs: object) -> None:
            self._stepped(optimizer)

        # Should a user compile the optimizer's step, this isn't a part of it.
        stepped._torchdynamo_disable = True  # type: ignore[attr-defined]
        module.register_optimizer_step_post_hook(stepped)

    def stand_aside(self) -> None:
        """There is a pipeline: its steps are the iterations, from now on."""
        self._aside = True
        if self._steps:
            self._observer.restart()

    def _stepped(self, optimizer: Any) -> None:
        if self._aside or self._observer.off:
            return
        try:
            if self._optimizer is None:
                self._optimizer = weakref.ref(optimizer)
                # Iteration 0 began before anything was seen of it.
                self._observer.count_step()
            if self._optimizer() is not optimizer:
                return
            self._steps += 1
            if self._steps <= _UNOBSERVED_STEPS:
                self._observer.count_step()
                return
            self._observer.end_step()
            self._observer.begin_step(single_stage_work(optimizer))
        except Exception as error:
            self._observer.switch_off(error)
