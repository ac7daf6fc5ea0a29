"""Observes `torch.distributed.pipelining`: the computations of a stage and the steps of a schedule.

Facts about torch (2.15, read in its source):

- `PipelineScheduleSingle.step` and `PipelineScheduleMulti.step` run every schedule once. `eval()` goes through `step`
  with `_has_backward` off. Where gradients are accumulated, several such rounds make an iteration.
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
from dataclasses import replace
from types import ModuleType
from typing import Any, Final

from joulepath_trainer.frameworks.check import Check, Wrapped
from joulepath_trainer.frameworks.custom import CustomFunctions
from joulepath_trainer.frameworks.rounds import Rounds
from joulepath_trainer.frameworks.steps import Steps
from joulepath_trainer.identity import Work, model_of, pipeline_work

__all__ = ["PipelineSteps"]

_COMPUTATIONS: Final = (
    Wrapped("_PipelineStageBase.forward_one_chunk", ("fwd_chunk_id",)),
    Wrapped("_PipelineStageBase.backward_one_chunk", ("bwd_chunk_id", "loss", "full_backward")),
    Wrapped("_PipelineStageBase.backward_weight_one_chunk", ("bwd_chunk_id",)),
)
_STEPS: Final = (Wrapped("PipelineScheduleSingle.step"), Wrapped("PipelineScheduleMulti.step"))
_LOSS: Final = Wrapped("_PipelineSchedule._maybe_compute_loss", ("stage",))
"""Where there is none, the loss counts as waiting."""
_CUSTOM: Final = (
    Wrapped("_PipelineScheduleRuntime.register_custom_function", ("computation_type", "custom_function")),
    Wrapped("_wait_batch_p2p"),
)
"""torch 2.9.1 has no custom functions yet."""


class PipelineSteps:
    """The steps of a schedule."""

    def __init__(self, steps: Steps, check: Check) -> None:
        """Nothing is observed before a module has been given to `observe_stages` and `observe_schedules`."""
        self._steps, self._check = steps, check
        self._known: tuple[Callable[[], object | None], int, Work | None] = lambda: None, 0, None
        """The last schedule, the microbatches of an iteration, and what it trains."""
        self._rounds: weakref.WeakKeyDictionary[Any, Rounds] = weakref.WeakKeyDictionary()
        """By model: each may accumulate over another number of them."""
        self._in_round = self._open = False
        """Whether an iteration has begun here that goes on from one round to the next."""
        self._trained: Any = None
        """The identity of its model."""
        self._before = 0
        """Microbatches of the rounds before, in this iteration."""
        self._computes_loss = False
        """Whether schedules were seen to."""
        self._custom = CustomFunctions(steps, lambda microbatch: self._before + microbatch)

    def observe_stages(self, stage_module: ModuleType) -> None:
        """Wraps the computations of a stage; for `torch.distributed.pipelining.stage`."""
        if not self._check.passes("torch", stage_module, _COMPUTATIONS, "only iterations of its pipelines are seen"):
            return
        base = stage_module._PipelineStageBase
        base.forward_one_chunk = self._observed_computation(base.forward_one_chunk, _forward, self._awaits_loss)
        base.backward_one_chunk = self._observed_computation(base.backward_one_chunk, _backward)
        base.backward_weight_one_chunk = self._observed_computation(base.backward_weight_one_chunk, _backward_weight)

    def observe_schedules(self, schedules_module: ModuleType) -> None:
        """Wraps the step of a schedule; for `torch.distributed.pipelining.schedules`."""
        if not self._check.passes("torch", schedules_module, _STEPS, "its pipelines aren't seen"):
            return
        for schedule in (schedules_module.PipelineScheduleSingle, schedules_module.PipelineScheduleMulti):
            schedule.step = self._observed_step(schedule.step)
        if not _LOSS.amiss(schedules_module):
            base = schedules_module._PipelineSchedule
            base._maybe_compute_loss = self._observed_loss(base._maybe_compute_loss)
        runtime = getattr(schedules_module, "_PipelineScheduleRuntime", None)
        if hasattr(runtime, "register_custom_function") and self._check.passes(
            "torch", schedules_module, _CUSTOM, "custom functions in its schedules aren't seen"
        ):
            self._custom.observe(schedules_module)

    def observe_optimizers(self, module: ModuleType) -> None:
        """Registers a hook for `torch.optim.optimizer`: what lies between two steps of one is an iteration."""

        def stepped(*_: object) -> None:
            if self._in_round:  # within a backward, one for each parameter
                return
            if self._open:  # fewer rounds than before
                self._open = False
                self._steps.end(whole=False)
            for rounds in self._rounds.values():
                rounds.end()

        stepped._torchdynamo_disable = True  # type: ignore[attr-defined]
        module.register_optimizer_step_post_hook(stepped)

    def _rounds_of(self, schedule: Any) -> tuple[Any, Rounds]:
        """What a schedule trains, and the rounds of that: its model, or itself where that can't be kept in mind."""
        try:
            model = model_of(schedule)
            return model, self._rounds.setdefault(model, Rounds())
        except Exception:
            return schedule, self._rounds.setdefault(schedule, Rounds())

    def _observed_step(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def step(schedule: Any, *args: Any, **kwargs: Any) -> Any:
            model, rounds = self._rounds_of(schedule)
            if not _trains(schedule) or (self._steps.running and not (self._open and self._trained == id(model))):
                if self._open and not self._in_round:
                    self._steps.evaluate()
                return self._steps.run(lambda: None, lambda: original(schedule, *args, **kwargs))
            number, last = rounds.begin()
            self._before = number * int(getattr(schedule, "_n_microbatches", 0))
            if number == 0:
                self._open = self._steps.begin(lambda: self._recognise(schedule, rounds.count))
                self._trained = id(model)
            whole, self._in_round = False, True
            try:
                result = original(schedule, *args, **kwargs)
                whole = True
                return result
            finally:
                self._in_round = False
                if not whole:
                    rounds.fail()
                if self._open and (last or not whole):
                    self._open = False
                    self._steps.end(whole)

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
                return kind, stage.stage_index, self._before + microbatch

            if self._custom.running:
                self._custom.compute()
                return original(stage, *args, **kwargs)
            return self._steps.run_instruction(
                name, lambda: original(stage, *args, **kwargs), open_ended=lambda: open_ended(stage)
            )

        return observed

    def _recognise(self, schedule: Any, rounds: int) -> Work | None:
        microbatches = int(schedule._n_microbatches) * rounds
        if self._known[0]() is not schedule or self._known[1] != microbatches:
            work = pipeline_work(schedule)
            work = replace(work, pipeline=replace(work.pipeline, microbatches=microbatches))
            self._known = weakref.ref(schedule), microbatches, work
        return self._known[2]


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
