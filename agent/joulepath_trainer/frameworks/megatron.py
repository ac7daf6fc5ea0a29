"""Observes Megatron-core: the functions of `megatron.core.pipeline_parallel.schedules`.

NeMo, Megatron-Bridge and verl train by the same functions. Facts about megatron-core (0.12.3, 0.16.1 and 0.19.2, read
in their sources):

- Each of the functions `forward_backward_pipelining_*` runs one iteration of all microbatches, `forward_only` where it
  evaluates. All arguments are keywords. `model` is a list of the rank's chunks, or the only one. (That of trainings
  without a pipeline is left alone: the steps of the optimizer tell their iterations, also of CUDA graphs that hold
  whole iterations. Their `backward_step` may go back by a function of Megatron's own, so it is told.)
- They find each other, `forward_step` and `backward_step` by their names in the module, so that what stands there is
  what is called. What a chunk receives has been waited for by then.
- A backward is told no chunk, but the very tensor (or list of one) that the chunk's forward returned.
- Chunk c of a rank is stage `rank + c * ranks` of the pipeline.
- Where `overlap_moe_expert_parallel_comm` is set (0.16.1 on, with interleaving), `combined_forward_backward_step` of
  the module `combined_1f1b` takes the place of both: a forward, a backward, or a pair. In the steady state it waits for
  their inputs itself, by `pre_forward` and then `pre_backward`, before it computes anything but embeddings.

A wrapped function keeps its signature, result and exceptions.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from joulepath_trainer.frameworks.check import Check, Wrapped
from joulepath_trainer.frameworks.passes import Passes
from joulepath_trainer.frameworks.steps import Name, Steps, pair
from joulepath_trainer.identity import Work, group_ranks, rank_and_world
from joulepath_trainer.placement import Placement
from joulepath_trainer.wire.messages import PipelinePlace

__all__ = ["MegatronSteps"]

_SCHEDULES: Final = {
    "forward_backward_pipelining_without_interleaving": "Megatron1F1B",
    "forward_backward_pipelining_with_interleaving": "MegatronInterleaved1F1B",
}
_ITERATIONS: Final = tuple(Wrapped(name, among=("model", "num_microbatches", "forward_only")) for name in _SCHEDULES)
_COMPUTATIONS: Final = (
    Wrapped("forward_step", ("forward_step_func", "data_iterator", "model")),
    Wrapped("backward_step", ("input_tensor", "output_tensor")),
)
_COMBINED: Final = (
    Wrapped(
        "combined_forward_backward_step",
        (
            "forward_step_func",
            "data_iterator",
            "f_model",
            "num_microbatches",
            "input_tensor",
            "forward_data_store",
            "b_model",
            "b_input_tensor",
            "b_output_tensor",
        ),
        among=("pre_forward", "pre_backward"),
    ),
)
_COMBINED_MODULE: Final = "megatron.core.pipeline_parallel.combined_1f1b"
_PACKAGE: Final = "megatron.core"
_STATE: Final = "megatron.core.parallel_state"


class MegatronSteps:
    """The iterations of Megatron's schedules."""

    def __init__(self, steps: Steps, passes: Passes, check: Check) -> None:
        """Nothing is observed before a module has been given to `observe_schedules`."""
        self._steps, self._passes, self._check = steps, passes, check
        self._stages: dict[int, int] = {}
        """Of the rank's chunks, by identity."""
        self._forwards: dict[int, int] = {}
        """How many there were in this step, by stage."""
        self._outputs: dict[int, tuple[int, int]] = {}
        """Stage and microbatch of what wasn't gone back through yet, by the identity of the output."""

    def observe_schedules(self, module: ModuleType) -> None:
        """Wraps what stands there."""
        if not self._check.passes(_PACKAGE, module, _ITERATIONS, "its pipelines aren't seen"):
            return
        for name, schedule in _SCHEDULES.items():
            setattr(module, name, self._observed_step(getattr(module, name), schedule))
        if not self._check.passes(_PACKAGE, module, _COMPUTATIONS, "only iterations of its pipelines are seen"):
            return
        module.forward_step = self._observed_forward(module.forward_step)  # type: ignore[attr-defined]
        module.backward_step = self._observed_backward(module.backward_step)  # type: ignore[attr-defined]
        combined = sys.modules.get(_COMBINED_MODULE)  # schedules import it
        if combined is not None and self._check.passes(
            _PACKAGE, combined, _COMBINED, "only iterations of its pipelines are seen that overlap experts' exchanges"
        ):
            name = _COMBINED[0].path
            setattr(combined, name, self._observed_pair(getattr(combined, name)))

    def _observed_step(self, original: Callable[..., Any], schedule: str) -> Callable[..., Any]:
        @functools.wraps(original)
        def step(*args: Any, **kwargs: Any) -> Any:
            try:
                return self._steps.run(lambda: self._recognise(schedule, **kwargs), lambda: original(*args, **kwargs))
            finally:
                if not self._steps.marking:  # else it was one within another
                    self._stages, self._forwards, self._outputs = {}, {}, {}

        return step

    def _observed_forward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def forward_step(forward_step_func: Any, data_iterator: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
            def run() -> Any:
                return original(forward_step_func, data_iterator, model, *args, **kwargs)

            place = self._next_forward(model)
            if place is None:
                return run()
            result = self._steps.run_instruction(lambda: ("F", *place), run)
            self._keep_output(result, place)
            return result

        return forward_step

    def _observed_backward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def backward_step(input_tensor: Any, output_tensor: Any, *args: Any, **kwargs: Any) -> Any:
            def run() -> Any:
                return original(input_tensor, output_tensor, *args, **kwargs)

            place = self._outputs.pop(_identity(output_tensor), None) if self._steps.marking else None
            if place is None:  # nothing that `forward_step` has returned
                self._steps.spoil()
                return self._passes.run(run)
            return self._steps.run_instruction(lambda: ("B", *place), run)

        return backward_step

    def _observed_pair(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def combined_forward_backward_step(
            forward_step_func: Any,
            data_iterator: Any,
            f_model: Any,
            num_microbatches: Any,
            input_tensor: Any,
            forward_data_store: Any,
            b_model: Any,
            b_input_tensor: Any,
            b_output_tensor: Any,
            *args: Any,
            **kwargs: Any,
        ) -> Any:
            given = (forward_step_func, data_iterator, f_model, num_microbatches, input_tensor, forward_data_store)
            given += (b_model, b_input_tensor, b_output_tensor, *args)
            if not self._steps.marking:
                return original(*given, **kwargs)
            forward = None if f_model is None else self._next_forward(f_model)
            backward = None if b_model is None else self._outputs.pop(_identity(b_output_tensor), None)
            if (forward is None, backward is None) != (f_model is None, b_model is None):
                self._steps.spoil()
                return original(*given, **kwargs)
            result = self._run_once_there(_named(forward, backward), original, given, kwargs)
            if forward is not None:
                self._keep_output(result, forward)
            return result

        return combined_forward_backward_step

    def _run_once_there(
        self, name: Name, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Runs an instruction that waits for its inputs by itself: it begins behind the last of its waits."""
        waits = [one for one in ("pre_forward", "pre_backward") if kwargs.get(one) is not None]
        if not waits:
            return self._steps.run_instruction(lambda: name, lambda: original(*args, **kwargs))
        wait, token = kwargs[waits[-1]], None

        @functools.wraps(wait)
        def waited(*args: Any, **kwargs: Any) -> Any:
            nonlocal token
            result = wait(*args, **kwargs)
            token = self._steps.begin_instruction(lambda: name)
            return result

        try:
            return original(*args, **{**kwargs, waits[-1]: waited})
        finally:
            if token is not None:
                self._steps.end_instruction(token)
            else:
                self._steps.spoil()

    def _next_forward(self, chunk: Any) -> tuple[int, int] | None:
        """Stage and microbatch of the forward of a chunk that begins; None if it isn't asked for."""
        stage = self._stages.get(id(chunk)) if self._steps.marking else None
        if stage is None:
            return None
        microbatch = self._forwards.get(stage, 0)
        self._forwards[stage] = microbatch + 1
        return stage, microbatch

    def _keep_output(self, result: Any, place: tuple[int, int]) -> None:
        """A backward is told by what its forward returned."""
        try:
            self._outputs[_identity(result[0])] = place
        except Exception as error:
            self._steps.switch_off(error)

    def _recognise(
        self,
        schedule: str,
        *,
        model: Any,
        num_microbatches: int,
        forward_only: bool = False,
        pg_collection: Any = None,
        **_others: object,
    ) -> Work | None:
        if forward_only:
            return None
        chunks = list(model) if isinstance(model, (list, tuple)) else [model]
        ranks, placement = _coordinates(pg_collection)
        number, count = ranks.index(rank_and_world()[0]), len(ranks)
        stages = tuple(number + chunk * count for chunk in range(len(chunks)))
        self._stages = {id(chunk): stage for chunk, stage in zip(chunks, stages, strict=True)}
        place = PipelinePlace(
            schedule=schedule,
            stage_count=count * len(chunks),
            microbatches=num_microbatches,
            stages=stages,
            ranks=ranks,
        )
        devices = (str(parameter.device) for chunk in chunks for parameter in chunk.parameters())
        return Work(place, next(devices, "cuda"), placement, weakref.ref(chunks[0]))


def _named(forward: tuple[int, int] | None, backward: tuple[int, int] | None) -> Name:
    if forward is not None and backward is not None:
        return pair(forward, backward)
    return ("F", *forward) if forward is not None else ("B", *(backward or (0, 0)))


def _coordinates(collection: Any) -> tuple[tuple[int, ...], Placement]:
    """The ranks of this one's pipeline, and where it stands among the others. Context-parallel peers compute in step
    with each other, as tensor-parallel ones do."""
    pipeline, peers, replicas = (
        group_ranks(getattr(collection, field, None) or getattr(sys.modules[_STATE], getter)())
        for field, getter in (
            ("pp", "get_pipeline_model_parallel_group"),
            ("tp_cp", "get_tensor_and_context_parallel_group"),
            ("dp", "get_data_parallel_group"),
        )
    )
    rank = rank_and_world()[0]
    return pipeline, Placement(replicas.index(rank), peers.index(rank), len(replicas), len(peers))


def _identity(output: Any) -> int:
    """Of a tensor, or of the first of a list."""
    return id(output[0] if isinstance(output, list) and output else output)
