"""Observes a training without a pipeline: from one step of its optimizer to the next is one iteration.

Torch has a hook for it that runs after the step of every optimizer (`register_optimizer_step_post_hook`). The first
optimizer that steps is the one that counts; a training with several of them steps the others just as often or seldom.
DeepSpeed's engine makes one step of several of its optimizer's (one for each group of parameters): its own counts.
What runs in an iteration, `passes` tells.

Where there is a pipeline, its steps count. One that isn't seen to step any more, though the optimizer does, has become
a CUDA graph that is replayed: then the optimizer's count again. Should it come back, more is waited for next time: the
optimizer just steps more often, as a second one does on the same stage, or by hand.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from joulepath_trainer.frameworks.passes import Passes
from joulepath_trainer.observer import Observer

__all__ = ["OptimizerSteps"]

_UNOBSERVED_STEPS: Final = 2
"""A pipeline trains before its optimizer first steps; a warm-up of two steps without one may come first."""


_ALONE: Final = 8
"""Steps of an optimizer between two of a pipeline that are thought possible at first."""


class OptimizerSteps:
    """The iterations of a training that has no pipeline."""

    def __init__(self, observer: Observer, passes: Passes) -> None:
        self._observer, self._passes = observer, passes
        self._stepping: Callable[[], object | None] = lambda: None
        self._steps = self._alone = 0
        self._most_alone = _ALONE
        self._within = self._aside = self._taken_over = False

    def observe(self, module: ModuleType) -> None:
        """Registers a hook; for `torch.optim.optimizer`."""

        def stepped(optimizer: Any, _args: object, _kwargs: object) -> None:
            if not self._within:
                self._stepped(optimizer, _device_of)

        # Should a user compile the optimizer's step, this isn't a part of it.
        stepped._torchdynamo_disable = True  # type: ignore[attr-defined]
        module.register_optimizer_step_post_hook(stepped)

    def observe_deepspeed(self, module: ModuleType) -> None:
        """Wraps the step of an engine; for `deepspeed.runtime.engine`."""
        original = module.DeepSpeedEngine._take_model_step

        @functools.wraps(original)
        def take_model_step(engine: Any, *args: Any, **kwargs: Any) -> Any:
            self._within = True
            try:
                result = original(engine, *args, **kwargs)
            finally:
                self._within = False
            self._stepped(engine, lambda engine: str(engine.device))
            return result

        module.DeepSpeedEngine._take_model_step = take_model_step

    def stand_aside(self) -> None:
        """A pipeline makes a training step: these are the iterations."""
        if not self._aside and self._steps:
            self._passes.forget()
            self._observer.restart()
        if self._taken_over:
            self._taken_over, self._most_alone = False, 2 * max(self._most_alone, self._steps)
        self._aside, self._alone = True, 0

    def _stepped(self, stepping: Any, device: Callable[[Any], str]) -> None:
        if self._observer.off:
            return
        try:
            if self._stepping() is None:
                self._stepping = weakref.ref(stepping)
            if self._stepping() is not stepping or self._waits():
                return
            if self._steps == 0:  # iteration 0 began before anything was seen of it
                self._observer.count_step()
            self._steps += 1
            self._passes.turn(device(stepping), observed=self._steps > _UNOBSERVED_STEPS)
        except Exception as error:
            self._observer.switch_off(error)

    def _waits(self) -> bool:
        """Whether there is a pipeline that steps as well."""
        if not self._aside:
            return False
        self._alone += 1
        if self._alone <= self._most_alone:
            return True
        self._aside, self._taken_over, self._steps = False, True, 0
        self._observer.restart()
        return False


def _device_of(optimizer: Any) -> str:
    return str(next(parameter.device for group in optimizer.param_groups for parameter in group["params"]))
