"""The example's pipeline, trained until a file tells the last step. It knows nothing of Joulepath.

Every rank reads `--stop-file`: it holds the number of the step to end before, and is written well ahead of it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.utils.data import DataLoader, IterableDataset

from virtual_gpus import stream

sys.path.append("/workload")
from train import SAMPLES_PER_MICROBATCH, WIDTH, Stage


class Zeros(IterableDataset):  # type: ignore[misc]  # mypy skips torch
    """Endless, so that its workers live as long as the training."""

    def __iter__(self) -> Iterator[Tensor]:
        return itertools.repeat(torch.zeros(1))


def last_step(path: Path) -> int:
    """The step to end before; far away until it is written."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return sys.maxsize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stop-file", type=Path, required=True)
    parser.add_argument("--microbatches", type=int, required=True)
    parser.add_argument("--first-kernel", type=int, required=True, help="stage of the GPU's model that stage 0 runs")
    parser.add_argument("--workers", type=int, default=0, help="forked DataLoader workers of each rank")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="CUDA initialization")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    rank, stages = dist.get_rank(), dist.get_world_size()
    stream.set_device(int(os.environ["LOCAL_RANK"]))
    stream.attach_to_torch_distributed()
    print(f"rank {rank} begins at {time.time():.0f}", flush=True)

    model = Stage(options.first_kernel + rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    stage = PipelineStage(model, rank, stages, torch.device("cpu"))
    schedule = Schedule1F1B(stage, n_microbatches=options.microbatches, loss_fn=nn.functional.mse_loss)
    samples = torch.randn(options.microbatches * SAMPLES_PER_MICROBATCH, WIDTH)
    inputs = {"args": (samples,)} if rank == 0 else {}
    targets = {"target": samples.tanh()} if rank == stages - 1 else {}
    batches: Iterator[Tensor] | None = None
    for step in itertools.count():
        if step >= last_step(options.stop_file):
            break
        if step == 2 and options.workers:  # forked by a rank that is known to its agent
            batches = iter(DataLoader(Zeros(), num_workers=options.workers))
            next(batches)
        optimizer.zero_grad()
        schedule.step(*inputs.get("args", ()), **targets)
        optimizer.step()
    print(f"rank {rank} ends after {step} steps", flush=True)
    del batches
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
