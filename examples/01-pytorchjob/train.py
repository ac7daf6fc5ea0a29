"""Trains a pipeline-parallel model with torch.distributed.pipelining. It knows nothing of Joulepath.

One rank is one stage. The layers are tiny and really computed, on the CPU; the time and the energy of a stage come
from a virtual GPU, which runs one kernel for each forward and each backward, as a large stage would run thousands.
On machines with GPUs, leave the kernels out and put your model in.

    torchrun --nproc-per-node 8 train.py --steps 20
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from virtual_gpus import stream

WIDTH = 16
SAMPLES_PER_MICROBATCH = 2
SCHEDULES = {"1F1B": Schedule1F1B, "GPipe": ScheduleGPipe}


class StageKernels(torch.autograd.Function):  # type: ignore[misc]  # mypy skips torch: 40 s
    """The stage's forward and backward kernels, enqueued where autograd passes."""

    @staticmethod
    def forward(ctx: Any, activations: Tensor, stage: int) -> Tensor:
        ctx.stage = stage
        stream.launch(stage, "F")
        return activations.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        stream.launch(ctx.stage, "B")
        return gradients[0].clone(), None


class Stage(nn.Module):  # type: ignore[misc]
    """One stage of the model."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, activations: Tensor) -> Tensor:
        hidden: Tensor = torch.tanh(self.layer(activations))
        result: Tensor = StageKernels.apply(hidden, self.index)
        return result


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=220, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--microbatches", type=int, default=12, help="microbatches of a step (default: %(default)s)")
    parser.add_argument(
        "--stages", type=int, default=0, help="of the pipeline; other ranks are replicas (default: all)"
    )
    parser.add_argument("--schedule", choices=SCHEDULES, default="1F1B", help="order of the microbatches (%(default)s)")
    parser.add_argument("--report-every", type=int, default=10, help="steps between two lines (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    # torch's own CUDA finds the virtual driver, can't use it and says so; the tensors live on the CPU
    warnings.filterwarnings("ignore", message="CUDA initialization")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    rank, stages = dist.get_rank(), options.stages or dist.get_world_size()
    replicas = dist.get_world_size() // stages
    place, replica = rank % stages, rank // stages
    pipelines = [dist.new_group(list(range(one * stages, (one + 1) * stages))) for one in range(replicas)]
    peers = [dist.new_group(list(range(one, dist.get_world_size(), stages))) for one in range(stages)]
    stream.set_device(int(os.environ["LOCAL_RANK"]))
    stream.attach_to_torch_distributed()

    model = Stage(place)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    schedule = SCHEDULES[options.schedule](
        PipelineStage(model, place, stages, torch.device("cpu"), group=pipelines[replica]),
        n_microbatches=options.microbatches,
        loss_fn=nn.functional.mse_loss,
    )
    samples = torch.randn(options.microbatches * SAMPLES_PER_MICROBATCH, WIDTH)
    target = torch.roll(samples, 1, dims=1).tanh()

    first, last = place == 0, place == stages - 1
    begin = time.monotonic()
    for step in range(options.steps):
        losses: list[Tensor] = []
        optimizer.zero_grad()
        schedule.step(*((samples,) if first else ()), **({"target": target, "losses": losses} if last else {}))
        for parameter in model.parameters() if replicas > 1 else ():
            dist.all_reduce(parameter.grad, group=peers[place])
        optimizer.step()
        if last and (step % options.report_every == 0 or step == options.steps - 1):
            loss = torch.stack(losses).mean().item()
            seconds = (time.monotonic() - begin) / (step + 1)
            print(f"step {step} of {options.steps}: loss {loss:.4f}, {seconds:.3f} s a step so far", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
