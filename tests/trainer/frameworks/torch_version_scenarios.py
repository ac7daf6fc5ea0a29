"""Trainings by torch's pipelining, for each of its versions; what the models themselves saw is returned."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed import pipelining
from torch.distributed.pipelining import PipelineStage

WIDTH, MICROBATCHES = 8, 4


class Seen(torch.nn.Module):  # type: ignore[misc]
    """A layer that notes which way it is gone through."""

    def __init__(self, stage: int, ran: list[list[Any]]) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(WIDTH, WIDTH)
        self._stage, self._ran = stage, ran

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        # A pass over meta tensors or without gradients only infers shapes.
        if value.device.type == "cpu" and torch.is_grad_enabled():
            self._ran.append([self._stage, "F"])
        return self.layer(value)


def train(rank: int, steps: int, schedule: str, rounds: int) -> list[list[list[Any]]]:
    """The forwards of each iteration, in their order."""
    torch.set_num_threads(1)
    torch.manual_seed(7)
    ran: list[list[Any]] = []
    model, count = Seen(rank, ran), torch.distributed.get_world_size()
    stage = PipelineStage(model, rank, count, torch.device("cpu"))
    made = getattr(pipelining, schedule)(stage, MICROBATCHES, loss_fn=torch.nn.functional.mse_loss)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    data, told = torch.randn(2 * MICROBATCHES, WIDTH), []
    for _ in range(steps):
        torch.distributed.barrier()
        ran.clear()
        for _ in range(rounds):
            made.step(*([data] if rank == 0 else []), **({"target": data} if rank == count - 1 else {}))
        optimizer.step()
        optimizer.zero_grad()
        told.append([list(one) for one in ran])
    return told
