"""Observes `torch.distributed.pipelining`: the computations of a stage and the steps of a schedule.

Facts about torch (2.15, read in its source):

- `PipelineScheduleSingle.step` and `PipelineScheduleMulti.step` run one iteration of every schedule. `eval()`
  goes through `step` with `_has_backward` off.
- A schedule waits for what a stage receives before it calls `forward_one_chunk` or `backward_one_chunk`: a marker
  at their begin is passed when the computation really begins. Step 0 runs shape inference inside `step`, outside of
  these methods.
- The last stage's loss is computed right behind its forward, by `_maybe_compute_loss` of the schedule: it counts as a
  part of that forward, whose output nobody else waits for.
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

from joulepath_trainer.frameworks.steps import Steps
from joulepath_trainer.identity import Work, pipeline_work

__all__ = ["PipelineSteps"]


class PipelineSteps:
    """The steps of a schedule."""

    def __init__(self, steps: Steps) -> None:
        """Nothing is observed before a module has been given to `observe_stages` and `observe_schedules`."""
        self._steps = steps
        self._known: tuple[Callable[[], object | None], Work | None] = lambda: None, None
        """The last schedule, and what it trains."""
        self._computes_loss = False
        """Whether schedules were seen to."""

    def observe_stages(self, stage_module: ModuleType) -> None:
        """Wraps the computations of a stage; for `torch.distributed.pipelining.stage`."""
        base = stage_module._PipelineStageBase
        base.forward_one_chunk = self._observed_computation(base.forward_one_chunk, _forward, self._awaits_loss)
        base.backward_one_chunk = self._observed_computation(base.backward_one_chunk, _backward)
        base.backward_weight_one_chunk = self._observed_computation(base.backward_weight_one_chunk, _backward_weight)

    def observe_schedules(self, schedules_module: ModuleType) -> None:
        """Wraps the step of a schedule; for `torch.distributed.pipelining.schedules`."""
        for schedule in (schedules_module.PipelineScheduleSingle, schedules_module.PipelineScheduleMulti):
            schedule.step = self._observed_step(schedule.step)
        base = schedules_module._PipelineSchedule
        base._maybe_compute_loss = self._observed_loss(base._maybe_compute_loss)

    def _observed_step(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def step(schedule: Any, *args: Any, **kwargs: Any) -> Any:
            return self._steps.run(lambda: self._recognise(schedule), lambda: original(schedule, *args, **kwargs))

        return step

    def _observed_loss(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def compute(schedule: Any, stage: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return original(schedule, stage, *args, **kwargs)
            finally:
                self._computes_loss = True
                self._steps.end_open()

        return compute

    def _awaits_loss(self, stage: Any) -> bool:
        return self._computes_loss and bool(stage.is_last)

    def _observed_computation(
        self,
        original: Callable[..., Any],
        instruction: Callable[..., tuple[str, int]],
        open_ended: Callable[[Any], bool] = lambda _: False,
    ) -> Callable[..., Any]:
        @functools.wraps(original)
        def observed(stage: Any, *args: Any, **kwargs: Any) -> Any:
            def name() -> tuple[str, int, int]:
                kind, microbatch = instruction(*args, **kwargs)
                return kind, stage.stage_index, microbatch

            return self._steps.run_instruction(
                name, lambda: original(stage, *args, **kwargs), open_ended=open_ended(stage)
            )

        return observed

    def _recognise(self, schedule: Any) -> Work | None:
        if not _trains(schedule):
            return None
        if self._known[0]() is not schedule:
            self._known = weakref.ref(schedule), pipeline_work(schedule)
        return self._known[1]


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
