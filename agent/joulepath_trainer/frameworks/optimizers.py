"""Observes a training without a pipeline: from one step of its optimizer to the next is one iteration.

Torch has a hook for it that runs after the step of every optimizer (`register_optimizer_step_post_hook`). The first
optimizer that steps is the one that counts; a training with several of them steps the others just as often or seldom.
Where another one steps many times on end, that one counts from then on: the first had its part of the training.
DeepSpeed's engine makes one step of several of its optimizer's (one for each group of parameters), or of none where
gradients overflow: its own counts. How its evaluations begin is its own as well (0.16 to 0.19, read in its source).
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

from joulepath_trainer.frameworks.compiling import preceded
from joulepath_trainer.frameworks.passes import Passes
from joulepath_trainer.frameworks.rounds import Skips
from joulepath_trainer.observer import Observer

__all__ = ["OptimizerSteps"]

_UNOBSERVED_STEPS: Final = 2
"""A pipeline trains before its optimizer first steps; a warm-up of two steps without one may come first."""

_ALONE: Final = 8
"""Steps of an optimizer between two of a pipeline that are thought possible at first."""
_OTHERS: Final = 32
"""Those of another optimizer between two of the one that counts."""


class OptimizerSteps:
    """The iterations of a training that has no pipeline."""

    def __init__(self, observer: Observer, passes: Passes, skips: Skips) -> None:
        self._observer, self._passes, self._skips = observer, passes, skips
        self._stepping = self._other = _nobody
        self._steps = self._alone = self._others = 0
        self._most_alone, self._most_others = _ALONE, _OTHERS
        self._within = self._aside = self._taken_over = False

    def observe(self, module: ModuleType) -> None:
        """Registers a hook; for `torch.optim.optimizer`."""

        def stepped(optimizer: Any, _args: object, _kwargs: object) -> None:
            self._skips.step()
            if not self._within:
                self._stepped(optimizer, _device_of)
            elif self._stepping() is optimizer:  # it made a step to set itself up, before the engine's first
                self._stepping = _nobody

        # Should a user compile the optimizer's step, this isn't a part of it.
        stepped._torchdynamo_disable = True  # type: ignore[attr-defined]
        module.register_optimizer_step_post_hook(stepped)

    def observe_deepspeed(self, module: ModuleType) -> None:
        """Wraps the step of an engine, and how it begins to evaluate; for `deepspeed.runtime.engine`."""
        engines = module.DeepSpeedEngine
        engines.eval = preceded(engines.eval, self._passes.evaluate, module)
        original = engines._take_model_step

        @functools.wraps(original)
        def take_model_step(engine: Any, *args: Any, **kwargs: Any) -> Any:
            self._within = True
            try:
                result = original(engine, *args, **kwargs)
            finally:
                self._within = False
            self._stepped(engine, lambda engine: str(engine.device))
            return result

        engines._take_model_step = take_model_step

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
            if not self._counts(stepping) or self._waits():
                return
            skipped = self._skips.turn()
            if self._steps == 0:  # iteration 0 began before anything was seen of it
                self._observer.count_step()
            self._steps += 1
            self._passes.turn(device(stepping), observed=self._steps > _UNOBSERVED_STEPS, skipped=skipped)
        except Exception as error:
            self._observer.switch_off(error)

    def _counts(self, stepping: Any) -> bool:
        """Whether the steps of this one are iterations."""
        counting = self._stepping()
        if counting is None or counting is stepping:
            self._stepping, self._others = weakref.ref(stepping), 0
            return True
        if self._others == 0 or self._other() is None:
            self._other, self._others = weakref.ref(stepping), 0
        if self._other() is not stepping:
            return False
        self._others += 1
        if self._others <= self._most_others:
            return False
        self._stepping, self._others, self._steps = self._other, 0, 0
        self._most_others *= 2
        if not self._aside:
            self._passes.forget()
            self._observer.restart()
        return True

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


def _nobody() -> object | None:
    return None


def _device_of(optimizer: Any) -> str:
    return str(next(parameter.device for group in optimizer.param_groups for parameter in group["params"]))
