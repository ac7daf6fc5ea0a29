"""Observes `torch.distributed.pipelining`: the computations of a stage and the steps of a schedule.

Facts about torch (2.15, read in its source):

- `PipelineScheduleSingle.step` and `PipelineScheduleMulti.step` run one iteration of every schedule. `eval()`
  goes through `step` with `_has_backward` off.
- A schedule waits for what a stage receives before it calls `forward_one_chunk` or `backward_one_chunk`: a marker
  at their begin is passed when the computation really begins. Step 0 runs shape inference inside `step`, outside of
  these methods; the loss of the last stage is computed outside of them, too.
- `backward_one_chunk(full_backward=False)` is the input gradient; the weight gradient follows in
  `backward_weight_one_chunk`.

A wrapped method keeps its signature, result and exceptions.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

from joulepath_trainer.identity import Work, pipeline_work
from joulepath_trainer.observer import Observer
from joulepath_trainer.session import BegunInstruction

__all__ = ["PipelineSteps"]


class PipelineSteps:
    """The training steps of this process's pipeline.

    The pipeline of the first training step is the one that is observed. Steps of a schedule that differs from it (in
    class, stages, microbatches or ranks) are neither marked nor counted; on every rank alike.
    """

    def __init__(self, observer: Observer, on_first: Callable[[], None]) -> None:
        """Nothing is observed before a module has been given to `observe_stages` and `observe_schedules`.

        Args:
            observer: Is told of every step.
            on_first: Called at the first training step of a pipeline, before it is observed.
        """
        self._observer = observer
        self._on_first = on_first
        self._work: Work | None = None
        self._schedule: Callable[[], object | None] = lambda: None
        self._in_step = False
        self._marking = False

    def observe_stages(self, stage_module: ModuleType) -> None:
        """Wraps the computations of a stage; for `torch.distributed.pipelining.stage`."""
        base = stage_module._PipelineStageBase
        base.forward_one_chunk = self._observed_computation(base.forward_one_chunk, _forward)
        base.backward_one_chunk = self._observed_computation(base.backward_one_chunk, _backward)
        base.backward_weight_one_chunk = self._observed_computation(base.backward_weight_one_chunk, _backward_weight)

    def observe_schedules(self, schedules_module: ModuleType) -> None:
        """Wraps the step of a schedule; for `torch.distributed.pipelining.schedules`."""
        for schedule in (schedules_module.PipelineScheduleSingle, schedules_module.PipelineScheduleMulti):
            schedule.step = self._observed_step(schedule.step)

    def _observed_step(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def step(schedule: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._begin_step(schedule):
                return original(schedule, *args, **kwargs)
            whole = False
            try:
                result = original(schedule, *args, **kwargs)
                whole = True
                return result
            finally:
                self._in_step = self._marking = False
                self._observer.end_step(whole)

        return step

    def _observed_computation(
        self, original: Callable[..., Any], instruction: Callable[..., tuple[str, int]]
    ) -> Callable[..., Any]:
        @functools.wraps(original)
        def observed(stage: Any, *args: Any, **kwargs: Any) -> Any:
            token = self._begin_instruction(stage, instruction, args, kwargs) if self._marking else None
            if token is None:
                return original(stage, *args, **kwargs)
            try:
                return original(stage, *args, **kwargs)
            finally:
                self._observer.end_instruction(token)

        return observed

    def _begin_step(self, schedule: Any) -> bool:
        try:
            if self._observer.off or self._in_step or not _trains(schedule):
                return False
            work = self._work if self._schedule() is schedule else self._recognise(schedule)
            if work is None:
                return False
            self._in_step = True
            self._marking = bool(self._observer.begin_step(work))
            return True
        except Exception as error:
            self._observer.switch_off(error)
            return False

    def _recognise(self, schedule: Any) -> Work | None:
        work = pipeline_work(schedule)
        if self._work is None:
            self._on_first()
        elif work != self._work:
            return None
        self._work, self._schedule = work, weakref.ref(schedule)
        return work

    def _begin_instruction(
        self, stage: Any, instruction: Callable[..., tuple[str, int]], args: Any, kwargs: Any
    ) -> BegunInstruction | None:
        try:
            kind, microbatch = instruction(*args, **kwargs)
            return self._observer.begin_instruction(kind, stage.stage_index, microbatch)
        except Exception as error:
            self._observer.switch_off(error)
            return None


def _trains(schedule: Any) -> bool:
    if not getattr(schedule, "_has_backward", False):
        return False
    return sys.modules["torch"].is_grad_enabled() or not getattr(schedule, "_backward_requires_autograd", True)


# These mirror the signatures of torch's methods, so that an argument is found however it was passed.
def _forward(fwd_chunk_id: int, *_args: object, **_kwargs: object) -> tuple[str, int]:
    return "F", fwd_chunk_id


def _backward(
    bwd_chunk_id: int, loss: object = None, full_backward: bool = True, *_args: object, **_kwargs: object
) -> tuple[str, int]:
    return "B" if full_backward else "I", bwd_chunk_id


def _backward_weight(bwd_chunk_id: int, *_args: object, **_kwargs: object) -> tuple[str, int]:
    return "W", bwd_chunk_id
