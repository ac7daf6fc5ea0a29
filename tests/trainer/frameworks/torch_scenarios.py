"""Trainings by torch.distributed.pipelining that know nothing of Joulepath, each stage computing on a virtual GPU."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import pipelining
from torch.distributed.pipelining import PipelineStage

from tests.trainer.frameworks.overlapping import overlap
from virtual_gpus import stream

WIDTH = 4
_BACKWARDS = {"full": "B", "input": "I", "weight": "W"}


_pairs: list[object] = []
"""The one that computes now."""


@contextmanager
def computing(forward: tuple[int, int], backward: tuple[int, int]) -> Iterator[None]:
    """A pair: one kernel, in place of those of both."""
    stream.launch(forward[0], f"F&{backward[0]}:B")
    _pairs.append((forward, backward))
    try:
        yield
    finally:
        _pairs.clear()


def launch(stage: int, kind: str) -> None:
    """A stage computes."""
    if not _pairs:
        stream.launch(stage, kind)


class Layer(torch.nn.Module):  # type: ignore[misc]
    """The one layer of a stage."""

    def __init__(self, stage: int) -> None:
        super().__init__()
        self.stage, self.layer = stage, torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Computes."""
        launch(self.stage, "F")
        result: torch.Tensor = self.layer(value)
        return result


class Stage(PipelineStage):  # type: ignore[misc]
    """Computes where torch goes back through a stage, wholly or by halves. Of the first stage nobody wants an input's
    gradient: torch leaves all to the half of the weights."""

    def backward_maybe_with_nosync(self, backward_type: str, *args: Any, **kwargs: Any) -> Any:
        """As torch calls it."""
        launch(self.stage_index, _BACKWARDS[backward_type])
        return super().backward_maybe_with_nosync(backward_type, *args, **kwargs)


def main(schedule: str, microbatches: int, chunks: int = 1, overlaps: bool = False, evaluate_every: int = 0) -> None:
    """Trains on virtual GPUs until it is killed, as a process that torchrun starts.

    overlaps: a forward and a backward that DualPipeV has together run interleaved. evaluate_every: so many iterations,
    by a pass of the schedule without a backward.
    """
    torch.set_num_threads(1)
    torch.manual_seed(7)
    stream.set_device(int(os.environ["LOCAL_RANK"]))
    stream.attach_to_torch_distributed()
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    count, is_v = ranks * chunks, schedule in ("ScheduleZBVZeroBubble", "ScheduleDualPipeV")
    own = [rank, count - 1 - rank] if is_v else [rank + ranks * chunk for chunk in range(chunks)]
    layers = [Layer(stage) for stage in own]
    stages = [Stage(layer, layer.stage, count, torch.device("cpu")) for layer in layers]
    made = getattr(pipelining, schedule)(
        stages if chunks > 1 or "ZeroBubble" in schedule else stages[0],
        microbatches,
        loss_fn=torch.nn.functional.mse_loss,
    )
    if overlaps:
        overlap(made, stages, computing)
    optimizer = torch.optim.SGD([one for layer in layers for one in layer.parameters()], lr=0.1)
    data = torch.randn(microbatches, WIDTH)
    inputs, target = [data] if 0 in own else [], {"target": data} if count - 1 in own else {}
    for number in itertools.count(1):
        made.step(*inputs, **target, **({"losses": []} if target else {}))
        optimizer.step()
        optimizer.zero_grad()
        if evaluate_every and number % evaluate_every == 0:
            made.eval(*inputs, **target)
        stream.synchronize()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
