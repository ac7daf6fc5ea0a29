"""Observes a training without a pipeline: from one step of its optimizer to the next is one iteration.

Torch has a hook for it that runs after the step of every optimizer (`register_optimizer_step_post_hook`). The first
optimizer that steps is the one that counts; a training with several of them steps the others just as often or seldom.
DeepSpeed's engine makes one step of several of its optimizer's (one for each group of parameters): its own counts.
"""

from __future__ import annotations

import functools
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
        self._stepping: Callable[[], object | None] | None = None
        self._steps = 0
        self._within = self._aside = False

    def observe(self, module: ModuleType) -> None:
        """Registers a hook; for `torch.optim.optimizer`."""

        def stepped(optimizer: Any, _args: object, _kwargs: object) -> None:
            if not self._within:
                self._stepped(optimizer, _device_type)

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
                return original(engine, *args, **kwargs)
            finally:
                self._within = False
                self._stepped(engine, lambda engine: engine.device.type)

        module.DeepSpeedEngine._take_model_step = take_model_step

    def stand_aside(self) -> None:
        """There is a pipeline: its steps are the iterations, from now on."""
        self._aside = True
        if self._steps:
            self._observer.restart()

    def _stepped(self, stepping: Any, device_type: Callable[[Any], str]) -> None:
        if self._aside or self._observer.off:
            return
        try:
            if self._stepping is None:
                self._stepping = weakref.ref(stepping)
                # Iteration 0 began before anything was seen of it.
                self._observer.count_step()
            if self._stepping() is not stepping:
                return
            self._steps += 1
            if self._steps <= _UNOBSERVED_STEPS:
                self._observer.count_step()
                return
            self._observer.end_step()
            self._observer.begin_step(single_stage_work(device_type(stepping)))
        except Exception as error:
            self._observer.switch_off(error)


def _device_type(optimizer: Any) -> str:
    return str(next(parameter.device.type for group in optimizer.param_groups for parameter in group["params"]))
