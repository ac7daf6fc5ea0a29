"""A training script of the tests: 1F1B over gloo, each stage's work on a virtual GPU. Arguments: the file at
which ranks meet, iterations, microbatches; RANK, LOCAL_RANK and WORLD_SIZE as torchrun sets them.

Rank 0 prints, for every iteration, the milliseconds of stream time between its first forward and its last backward:
the pipeline's whole length.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

import torch
import torch.distributed as dist
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from virtual_gpus import stream


class _Work(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx, value, stage):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        ctx.stage = stage
        stream.launch(stage, "F")
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        stream.launch(ctx.stage, "B")
        return gradient.clone(), None


class _Stage(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, stage: int) -> None:
        super().__init__()
        self.stage, self.layer = stage, torch.nn.Linear(8, 8)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return _Work.apply(self.layer(value), self.stage)


def _event(driver: ctypes.CDLL) -> ctypes.c_void_p:
    event = ctypes.c_void_p()
    assert driver.cuEventCreate(ctypes.byref(event), 0) == 0
    assert driver.cuEventRecord(event, None) == 0
    return event


def main(meeting: str, iterations: int, microbatches: int) -> None:
    torch.set_num_threads(1)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    stream.set_device(int(os.environ["LOCAL_RANK"]))
    stream.attach_to_torch_distributed()
    driver = ctypes.CDLL("libcuda.so.1")
    stage = PipelineStage(_Stage(rank), rank, size, torch.device("cpu"))
    schedule = Schedule1F1B(stage, microbatches, loss_fn=torch.nn.functional.mse_loss)
    batch = torch.randn(microbatches, 8)
    elapsed = []
    for _ in range(iterations):
        dist.barrier()
        first = _event(driver)
        schedule.step(*([batch] if rank == 0 else []), **({"target": batch} if rank == size - 1 else {}))
        last = _event(driver)
        stream.synchronize()
        milliseconds = ctypes.c_float()
        assert driver.cuEventElapsedTime(ctypes.byref(milliseconds), first, last) == 0
        elapsed.append(milliseconds.value)
    if rank == 0:  # its last backward ends the iteration
        print(json.dumps(elapsed), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
