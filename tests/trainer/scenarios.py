"""Trainings that know nothing of Joulepath. They run in a rank's process and return what the test compares."""

from __future__ import annotations

import atexit
import os
import sys
from typing import Any

import torch
from torch.distributed import pipelining
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import PipelineScheduleMulti, PipelineScheduleSingle
from torch.distributed.pipelining.stage import _PipelineStageBase

MICROBATCHES = 4
WIDTH = 8


def end_of_process() -> None:
    """What the interpreter does at its end, without destroying what the parent of a fork owns."""
    sys.stdout.flush()
    atexit._run_exitfuncs()
    sys.stderr.flush()
    os._exit(0)


def unhook() -> None:
    """Torch as it was before the hook."""
    for schedule in (PipelineScheduleSingle, PipelineScheduleMulti):
        schedule.step = schedule.step.__wrapped__
    for name in ("forward_one_chunk", "backward_one_chunk", "backward_weight_one_chunk"):
        setattr(_PipelineStageBase, name, getattr(_PipelineStageBase, name).__wrapped__)


class Training:
    """A pipeline over all ranks."""

    def __init__(self, rank: int, schedule: str = "Schedule1F1B", stages_of_rank: int = 1) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(7)
        world = torch.distributed.get_world_size()
        self.count = world * stages_of_rank
        self.indices = [rank + world * chunk for chunk in range(stages_of_rank)]
        models = [torch.nn.Linear(WIDTH, WIDTH) for _ in range(self.count)]
        self.stages = [PipelineStage(models[i], i, self.count, torch.device("cpu")) for i in self.indices]
        parameters = [parameter for i in self.indices for parameter in models[i].parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr=0.1)
        kind = getattr(pipelining, schedule)
        stages = self.stages if stages_of_rank > 1 else self.stages[0]
        self.schedule = kind(stages, MICROBATCHES, loss_fn=torch.nn.functional.mse_loss)
        self.data = torch.randn(2 * MICROBATCHES, WIDTH)

    def _inputs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        first, last = 0 in self.indices, self.count - 1 in self.indices
        return ((self.data,) if first else ()), ({"target": self.data} if last else {})

    def step(self) -> list[float]:
        """One iteration; the losses of the microbatches on the last rank."""
        args, kwargs = self._inputs()
        losses: list[torch.Tensor] = []
        self.schedule.step(*args, **kwargs, losses=losses)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return [loss.item() for loss in losses]

    def evaluate(self) -> None:
        """A step without gradients."""
        args, kwargs = self._inputs()
        self.schedule.eval(*args, **kwargs)


def train(
    rank: int, steps: int = 5, hooked: bool = True, evaluate_after: int = -1, **options: Any
) -> list[list[float]]:
    """Trains; returns the losses of every step."""
    if not hooked:
        unhook()
    training = Training(rank, **options)
    losses = []
    for number in range(steps):
        torch.distributed.barrier()
        losses.append(training.step())
        if number == evaluate_after:
            training.evaluate()
    return losses
