"""A small real training: one rank of a pipeline of two stages, torch's 1F1B schedule. It knows nothing of Joulepath.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 python train.py --device cuda

- `cuda`, with two GPUs or more: a stage a GPU, NCCL between them.
- `cuda --alone`, with one: the first stage is the GPU's, the second a few numbers on the CPU, with gloo between them,
  since NCCL refuses two ranks on one GPU. Activations are narrow and pass through the host.
- `virtual`: both stages on the CPU with gloo, their work on virtual GPUs. A dry run: no figure of it is a GPU's.

Each rank prints a JSON line for each step: {"step", "seconds"}.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

WIDTH = 64
SIDE = 8192
FORWARD_S = 0.03
MICROBATCHES = 4


class CudaStage(nn.Module):  # type: ignore[misc]  # mypy skips torch
    """Matrix products in bfloat16, as many as last for about the seconds asked; narrow at both ends."""

    def __init__(self, device: torch.device, forward_s: float) -> None:
        super().__init__()
        self.device = device
        lift, lower = (
            torch.randn(*shape, device=device, dtype=torch.bfloat16) for shape in ((WIDTH, SIDE), (SIDE, WIDTH))
        )
        middle = torch.randn(SIDE, SIDE, device=device, dtype=torch.bfloat16) / SIDE**0.5
        # In a tuple: the pipeline would move registered ones to its own device, which may be the CPU.
        self.weights = tuple(one.requires_grad_() for one in (lift / WIDTH**0.5, middle, lower / SIDE**0.5))
        self.products = max(1, round(forward_s / self._product_s()))

    def forward(self, activations: Tensor) -> Tensor:
        lift, middle, lower = self.weights
        hidden = activations.to(self.device, torch.bfloat16) @ lift
        for _ in range(self.products):
            hidden = hidden @ middle
            hidden = hidden / hidden.detach().norm(dim=1, keepdim=True).clamp_min(1e-3) * SIDE**0.5
        result: Tensor = (hidden @ lower).to(activations.device, activations.dtype)
        return result

    def _product_s(self) -> float:
        middle, trial = self.weights[1].detach(), torch.randn(SIDE, SIDE, device=self.device, dtype=torch.bfloat16)
        took_s = 0.0
        for _ in range(3):  # the first ones load what the product needs
            torch.cuda.synchronize(self.device)
            begun_s = time.perf_counter()
            for _ in range(8):
                trial = trial @ middle
            torch.cuda.synchronize(self.device)
            took_s = (time.perf_counter() - begun_s) / 8
        return max(1e-5, took_s)


class VirtualKernels(torch.autograd.Function):  # type: ignore[misc]
    """A stage's work on a virtual GPU, enqueued where autograd passes."""

    @staticmethod
    def forward(ctx: Any, activations: Tensor, stage: int) -> Tensor:
        from virtual_gpus import stream

        ctx.stage = stage
        stream.launch(stage, "F")
        return activations.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        from virtual_gpus import stream

        stream.launch(ctx.stage, "B")
        return gradients[0].clone(), None


class CpuStage(nn.Module):  # type: ignore[misc]
    """A few numbers on the CPU, and what a virtual GPU is to do for them."""

    def __init__(self, work: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.work = nn.Linear(WIDTH, WIDTH), work
        self.weights = tuple(self.layer.parameters())

    def forward(self, activations: Tensor) -> Tensor:
        return self.work(torch.tanh(self.layer(activations)))


def stage_of(device: str, rank: int, *, alone: bool) -> tuple[nn.Module, torch.device]:
    """The rank's stage, and the device that its activations travel from; joins the other rank."""
    if device == "virtual":
        from virtual_gpus import stream

        warnings.filterwarnings("ignore", message="CUDA initialization")
        dist.init_process_group("gloo")
        if alone and rank:
            return CpuStage(lambda activations: activations), torch.device("cpu")
        stream.set_device(rank)
        stream.attach_to_torch_distributed()
        return CpuStage(lambda activations: VirtualKernels.apply(activations, rank)), torch.device("cpu")
    if not alone:
        own = torch.device("cuda", rank)
        torch.cuda.set_device(own)
        dist.init_process_group("nccl", device_id=own)
        return CudaStage(own, FORWARD_S * (1 - 0.4 * rank)), own
    dist.init_process_group("gloo")
    if rank == 0:
        torch.cuda.set_device(0)
        return CudaStage(torch.device("cuda", 0), FORWARD_S), torch.device("cpu")
    return CpuStage(lambda activations: activations), torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=["cuda", "virtual"], required=True)
    parser.add_argument("--alone", action="store_true", help="the first rank has the only GPU")
    parser.add_argument("--steps", type=int, default=1_000_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rank = int(os.environ["RANK"])
    model, device = stage_of(options.device, rank, alone=options.alone)
    optimizer = torch.optim.SGD(model.weights, lr=1e-3)
    schedule = Schedule1F1B(
        PipelineStage(model, rank, 2, device), n_microbatches=MICROBATCHES, loss_fn=nn.functional.mse_loss
    )
    rows = SIDE if options.device == "cuda" else 2
    samples = torch.randn(MICROBATCHES * rows, WIDTH, device=device)
    given: dict[str, Any] = {} if rank == 0 else {"target": samples.tanh(), "losses": []}
    for step in range(options.steps):
        begun_s = time.perf_counter()
        optimizer.zero_grad()
        schedule.step(*((samples,) if rank == 0 else ()), **given)
        optimizer.step()
        given.get("losses", []).clear()
        print(json.dumps({"step": step, "seconds": time.perf_counter() - begun_s}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
