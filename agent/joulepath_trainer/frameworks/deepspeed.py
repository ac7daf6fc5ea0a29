"""Observes DeepSpeed's pipelines: `deepspeed.runtime.pipe.engine.PipelineEngine`.

Facts about DeepSpeed (0.19.8, read in its source):

- `train_batch` runs one iteration; `eval_batch` evaluates.
- Instructions are looked up in `_INSTRUCTION_MAP`, a dict of functions by the class of the command: a method that is
  wrapped would never be called. What a stage receives has been waited for by then.
- A rank has one stage, and goes back through its microbatches in the order in which it went forward. Other engines
  (DualPipeV) have a map of their own: their iterations are seen, not their instructions.

A wrapped function keeps its signature, result and exceptions.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from joulepath_trainer.frameworks.check import Check, Wrapped
from joulepath_trainer.frameworks.steps import Steps
from joulepath_trainer.identity import Work
from joulepath_trainer.placement import Placement
from joulepath_trainer.wire.messages import PipelinePlace

__all__ = ["DeepSpeedSteps"]

_ITERATIONS: Final = (Wrapped("PipelineEngine.train_batch"),)
_KINDS: Final = {"ForwardPass": "F", "BackwardPass": "B"}
"""By the name of the command's class."""


class DeepSpeedSteps:
    """The batches of a pipeline."""

    def __init__(self, steps: Steps, check: Check) -> None:
        """Nothing is observed before a module has been given to `observe_engine`."""
        self._steps, self._check = steps, check
        self._ran = dict.fromkeys(_KINDS.values(), 0)
        """How many of a kind there were in this step."""

    def observe_engine(self, module: ModuleType) -> None:
        """For `deepspeed.runtime.pipe.engine`."""
        if not self._check.passes("deepspeed", module, _ITERATIONS, "its pipelines aren't seen"):
            return
        engine = module.PipelineEngine
        engine.train_batch = self._observed_step(engine.train_batch)
        commands = getattr(engine, "_INSTRUCTION_MAP", {})
        if missing := _KINDS.keys() - {command.__name__ for command in commands}:
            amiss = f"PipelineEngine._INSTRUCTION_MAP has no {' and no '.join(sorted(missing))}"
            self._check.lacks("deepspeed", amiss, "only iterations of its pipelines are seen")
            return
        for command, original in tuple(commands.items()):
            if command.__name__ in _KINDS:
                engine._INSTRUCTION_MAP[command] = self._observed_computation(original, _KINDS[command.__name__])

    def _observed_step(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def train_batch(engine: Any, *args: Any, **kwargs: Any) -> Any:
            def step() -> Any:
                self._ran = dict.fromkeys(self._ran, 0)
                return original(engine, *args, **kwargs)

            return self._steps.run(lambda: _work(engine), step)

        return train_batch

    def _observed_computation(self, original: Callable[..., Any], kind: str) -> Callable[..., Any]:
        @functools.wraps(original)
        def observed(engine: Any, *args: Any, **kwargs: Any) -> Any:
            def name() -> tuple[str, int, int]:
                self._ran[kind] += 1
                return kind, int(engine.stage_id), self._ran[kind] - 1

            return self._steps.run_instruction(name, lambda: original(engine, *args, **kwargs))

        return observed


def _work(engine: Any) -> Work:
    grid = engine.grid
    place = PipelinePlace(
        schedule="DeepSpeed1F1B" if type(engine).__name__ == "PipelineEngine" else type(engine).__name__[:256],
        stage_count=int(engine.num_stages),
        microbatches=int(engine.micro_batches),
        stages=(int(engine.stage_id),),
        ranks=tuple(int(rank) for rank in grid.pp_group),
    )
    placement = Placement(
        int(grid.data_parallel_id),
        int(grid.get_slice_parallel_rank()),
        int(grid.data_parallel_size),
        int(grid.slice_parallel_size),
    )
    return Work(place, str(engine.device), placement, weakref.ref(engine))
