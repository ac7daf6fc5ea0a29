"""One stage of the example, replicated by DDP and trained until a file tells the last step. It knows nothing of
Joulepath. Its options are those of `pipeline.py`."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from virtual_gpus import stream

sys.path.append("/workload")
from pipeline import last_step  # type: ignore[import-not-found]  # beside it in the pod
from train import SAMPLES_PER_MICROBATCH, WIDTH, Stage


def reduce(group: Any, bucket: Any) -> Any:
    """As collectives do: after the work that made what they reduce."""
    stream.synchronize()
    return allreduce_hook(group, bucket)


reduce.__annotations__.clear()  # DDP takes texts for wrong types


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stop-file", type=Path, required=True)
    parser.add_argument("--microbatches", type=int, required=True)
    parser.add_argument("--first-kernel", type=int, required=True, help="stage of the GPU's model that all run")
    parser.add_argument("--workers", type=int, default=0, help="of pipelines")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="CUDA initialization")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    stream.set_device(int(os.environ["LOCAL_RANK"]))

    stage = Stage(options.first_kernel)
    model: Any = DistributedDataParallel(stage)
    model.register_comm_hook(None, reduce)
    optimizer = torch.optim.SGD(stage.parameters(), lr=0.05)
    samples = torch.randn(SAMPLES_PER_MICROBATCH, WIDTH)
    for step in itertools.count():
        if step >= last_step(options.stop_file):
            break
        optimizer.zero_grad()
        for _ in range(options.microbatches):
            nn.functional.mse_loss(model(samples), samples.tanh()).backward()
        optimizer.step()
    print(f"rank {dist.get_rank()} ends after {step} steps", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
