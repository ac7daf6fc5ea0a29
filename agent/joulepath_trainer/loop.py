"""How a training loop tells of itself where no adapter knows it: `describe` once, then `iteration` and `instruction`.

    import joulepath_trainer as joulepath

    joulepath.describe(stages=[rank], stage_count=4, microbatches=8, ranks=[0, 1, 2, 3])
    for batch in data:
        with joulepath.iteration():
            with joulepath.instruction("F", stage=rank, microbatch=0):
                ...

Nothing in here raises, and without an agent all of it does nothing. What is told wrongly is said once, in the
training's log, and isn't observed.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from operator import index
from typing import Any, Final

from joulepath_trainer.frameworks.compiling import compiling
from joulepath_trainer.frameworks.loops import LoopSteps
from joulepath_trainer.hook import adapters
from joulepath_trainer.identity import Work, rank_and_world
from joulepath_trainer.placement import Placement
from joulepath_trainer.session import BegunInstruction
from joulepath_trainer.wire.messages import PipelinePlace
from joulepath_trainer.wire.protocol import KINDS

__all__ = ["describe", "instruction", "iteration"]

_log = logging.getLogger("joulepath")
_MOST: Final = 65535
_said: set[str] = set()


def describe(
    *,
    stages: Sequence[int] = (0,),
    stage_count: int = 1,
    microbatches: int = 1,
    ranks: Sequence[int] | None = None,
    device: object = None,
    data_parallel: tuple[int, int] | None = None,
    tensor_parallel: tuple[int, int] = (0, 1),
) -> None:
    """Says what this rank trains, before its first iteration, and again whenever that changes; on every rank.

    Args:
        stages: The stages of the pipeline that this rank runs.
        stage_count: All of them.
        microbatches: Of an iteration, those of all accumulated gradients together.
        ranks: The global ranks of this rank's pipeline, in its order; all of the job unless told.
        device: The torch device that computes; the current CUDA device unless told, or the CPU without CUDA.
        data_parallel: Which of how many replicas of the pipeline this is; guessed as a regular mesh unless told.
        tensor_parallel: Which of how many tensor-parallel peers this is. Counts with `data_parallel` only.
    """
    if (steps := _loop()) is None:
        return
    try:
        steps.describe(_work(stages, stage_count, microbatches, ranks, device, data_parallel, tensor_parallel))
    except Exception as error:
        _say(f"joulepath_trainer.describe is told what can't be, this rank is observed as before: {error}")


class iteration:  # noqa: N801 - used as a function is
    """One iteration: from the begin of the block to that of the next. The optimizer's step is a part of it."""

    __slots__ = ("_steps",)

    def __enter__(self) -> None:
        steps = _loop()
        self._steps = steps if steps is not None and steps.begin() else None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._steps is not None:
            self._steps.end(whole=kind is None)


class instruction:  # noqa: N801 - used as a function is
    """One computation of a microbatch on a stage, once what it needs from other ranks is there: receive before."""

    __slots__ = ("_name", "_steps", "_token")

    def __init__(self, kind: str, *, stage: int = 0, microbatch: int = 0) -> None:
        """Args:
        kind: "F" forward, "B" whole backward, or its halves "I", the input's gradient, and "W", the weights'.
        stage: Of the pipeline; one that `describe` has named.
        microbatch: Its number in the iteration.
        """
        self._name = kind, stage, microbatch

    def __enter__(self) -> None:
        self._token: BegunInstruction | None = None
        self._steps = _loop()
        if self._steps is None:
            return
        kind, stage, microbatch = self._name
        if kind in tuple(KINDS) and _is_count(stage, 0) and _is_count(microbatch, 0):
            self._token = self._steps.begin_instruction(kind, stage, microbatch)
        else:
            self._steps.spoil()
            _say(
                f"joulepath_trainer.instruction is told of {self._name!r:.200}, of which a kind of {', '.join(KINDS)} "
                f"and two numbers up to {_MOST} were expected: iterations with it aren't observed"
            )

    def __exit__(self, *_: object) -> None:
        if self._steps is not None:
            self._steps.end_instruction(self._token)


def _loop() -> LoopSteps | None:
    if compiling(sys.modules.get("torch")):
        return None
    try:
        found = adapters()
    except Exception as error:
        _say(f"this rank isn't observed: {error!r:.200}")
        return None
    return None if found is None else found.loop


def _work(
    stages: Sequence[int],
    stage_count: int,
    microbatches: int,
    ranks: Sequence[int] | None,
    device: object,
    data_parallel: tuple[int, int] | None,
    tensor_parallel: tuple[int, int],
) -> Work:
    """Raises: ValueError: It can't be; the text names the argument."""
    own, world_size = rank_and_world()
    of_pipeline = tuple(range(world_size) if ranks is None else map(index, ranks))
    for name, value in (("stage_count", stage_count), ("microbatches", microbatches)):
        if not _is_count(value, 1):
            raise ValueError(f"{name} must be a number from 1 to {_MOST}, it is {value!r:.80}")
    if not stages or not all(_is_count(one, 0) and one < stage_count for one in stages):
        raise ValueError(f"stages must name stages below {stage_count}, they are {stages!r:.80}")
    if own not in of_pipeline:
        raise ValueError(f"ranks must have this rank, {own}, they are {of_pipeline!r:.80}")
    pipeline = PipelinePlace(
        schedule="" if stage_count == 1 else "Loop",
        stage_count=stage_count,
        microbatches=microbatches,
        stages=tuple(stages),
        ranks=of_pipeline,
    )
    placement = None
    if data_parallel is not None:
        placement = Placement(data_parallel[0], tensor_parallel[0], data_parallel[1], tensor_parallel[1])
        if not (0 <= placement.data < placement.data_parallel and 0 <= placement.tensor < placement.tensor_parallel):
            raise ValueError(
                f"data_parallel and tensor_parallel must each be a number below another, they are {placement}"
            )
    return Work(pipeline, _own_device() if device is None else str(device), placement)


def _own_device() -> str:
    torch: Any = sys.modules.get("torch")
    return "cuda" if torch is not None and torch.cuda.is_initialized() else "cpu"


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= _MOST


def _say(sentence: str) -> None:
    """Once each: a loop does the same for weeks."""
    if sentence not in _said and len(_said) < 20:
        _said.add(sentence)
        _log.warning("%s", sentence)
