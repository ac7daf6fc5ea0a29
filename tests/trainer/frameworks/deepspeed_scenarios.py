"""Trainings by DeepSpeed that know nothing of Joulepath, on CPUs."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

os.environ |= {"DS_ACCELERATOR": "cpu", "PYTORCH_NVML_BASED_CUDA_CHECK": "0"}

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from deepspeed.pipe import PipelineModule
from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology

from tests.trainer.frameworks.ran import RAN, Ran
from virtual_gpus import stream

logging.getLogger("DeepSpeed").setLevel(logging.WARNING)

WIDTH, MICROBATCHES = 4, 4
CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "gradient_accumulation_steps": MICROBATCHES,
    "optimizer": {"type": "SGD", "params": {"lr": 0.1}},
    "zero_allow_untested_optimizer": True,
    "steps_per_print": 10**9,
}
SIXTEEN_BITS = {"fp16": {"enabled": True, "initial_scale_power": 4}}
# DeepSpeed asks what a CPU does fast; it does all of it.
get_accelerator().is_fp16_supported = lambda: True


class Layer(torch.nn.Module):  # type: ignore[misc]
    """The one layer of a stage."""

    def __init__(self, stage: int) -> None:
        super().__init__()
        self.stage, self.layer = stage, torch.nn.Linear(WIDTH, WIDTH)
        self.forwards = 0

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Of the microbatch that comes next."""
        value = Ran.apply(self.layer(value), self.stage, self.forwards)
        self.forwards += 1
        return value


def train_pipeline(rank: int, steps: int, pipeline: int, tensor: int = 1, evaluate_after: int = -1) -> dict[str, Any]:
    """Trains a pipeline; what ran in each step, the losses, and where this rank stands."""
    _begin()
    engine, model = _engine(pipeline, tensor, MICROBATCHES)
    own = [layer for layer in model.forward_funcs if isinstance(layer, Layer)]
    data = (torch.ones(1, WIDTH), torch.zeros(1, WIDTH))
    orders, losses = [], []
    for number in range(steps):
        RAN.clear()
        for layer in own:
            layer.forwards = 0
        losses.append(float(engine.train_batch(iter([data] * MICROBATCHES))))
        orders.append(list(RAN))
        if number == evaluate_after:
            engine.eval_batch(iter([data] * MICROBATCHES))
    return {"orders": orders, "losses": losses, "data": engine.grid.data_parallel_id, "pipeline": engine.grid.pp_group}


def train_in_turns(rank: int, turns: Sequence[int], evaluate: bool = False) -> list[list[list[list[Any]]]]:
    """Trains an actor and a critic of one kind, so many batches of each in turn, and has one like them evaluate before
    each batch; what ran in the batches of each."""
    _begin()
    data = (torch.ones(1, WIDTH), torch.zeros(1, WIDTH))
    engines = [_engine(2, 1, MICROBATCHES) for _ in range(3)]
    orders: list[list[list[list[Any]]]] = [[], []]
    for number, count in enumerate(turns):
        engine, model = engines[number % 2]
        for _ in range(count):
            if evaluate:
                engines[2][0].eval_batch(iter([data] * MICROBATCHES))
            RAN.clear()
            for layer in model.forward_funcs:
                layer.forwards = 0
            engine.train_batch(iter([data] * MICROBATCHES))
            orders[number % 2].append(list(RAN))
    return orders


def train_overflowing(rank: int, steps: int, overflows: int) -> list[int]:
    """Trains a pipeline in 16 bits, whose gradients overflow in that step; the steps that were skipped."""
    _begin()
    engine, _ = _engine(2, 1, MICROBATCHES, **SIXTEEN_BITS)
    skipped: list[int] = []
    for number in range(steps):
        value = float("inf") if number == overflows else 1.0
        data = (torch.full((1, WIDTH), value).half(), torch.zeros(1, WIDTH).half())
        engine.train_batch(iter([data] * MICROBATCHES))
        skipped += [number] * (engine.skipped_steps - len(skipped))
    return skipped


def train_in_turns_without_pipeline(rank: int, steps: int) -> None:
    """Trains an actor and a critic by ZeRO, both in each iteration."""
    _begin()
    engines = [_zero_engine(1, torch.nn.Linear(WIDTH, WIDTH)) for _ in range(2)]
    for _ in range(steps):
        dist.barrier()
        for engine in engines:
            engine.backward(engine(torch.ones(1, WIDTH)).square().mean())
            engine.step()


def train_unevenly(rank: int, steps: int, zero: int, overflows: int, evaluates: int) -> list[int]:
    """Trains in 16 bits by ZeRO: in one step gradients overflow, in another the engine evaluates; those skipped."""
    _begin()
    engine = _zero_engine(zero, torch.nn.Linear(WIDTH, WIDTH), **SIXTEEN_BITS)
    skipped: list[int] = []
    for number in range(steps):
        dist.barrier()
        if number == evaluates:
            engine.eval()
            engine(torch.ones(1, WIDTH).half())
            engine.train()
        value = float("inf") if number == overflows else 1.0
        engine.backward(engine(torch.full((1, WIDTH), value).half()).square().mean())
        engine.step()
        skipped += [number] * (engine.skipped_steps - len(skipped))
    return skipped


def _engine(pipeline: int, tensor: int, microbatches: int, **more: Any) -> tuple[Any, PipelineModule]:
    """An engine whose stages are a layer each, and its model."""
    replicas = dist.get_world_size() // (pipeline * tensor)
    topology = PipeModelDataParallelTopology(num_pp=pipeline, num_mp=tensor, num_dp=replicas)
    model = PipelineModule(
        [Layer(stage) for stage in range(pipeline)],
        topology=topology,
        loss_fn=torch.nn.functional.mse_loss,
        partition_method="uniform",
    )
    config = {**CONFIG, "gradient_accumulation_steps": microbatches, **more}
    engine, *_ = deepspeed.initialize(model=model, model_parameters=list(model.parameters()), config=config)
    return engine, model


def _zero_engine(zero: int, model: torch.nn.Module, parameters: Any = None, **more: Any) -> Any:
    """An engine without a pipeline."""
    config = {**CONFIG, "gradient_accumulation_steps": 1, "zero_optimization": {"stage": zero}, **more}
    parameters = parameters or list(model.parameters())
    return deepspeed.initialize(model=model, model_parameters=parameters, config=config)[0]


def train_in_groups(rank: int, steps: int, zero: int) -> None:
    """Trains without a pipeline, four groups of parameters, which ZeRO steps one by one."""
    _begin()
    model = torch.nn.Sequential(*(torch.nn.Linear(WIDTH, WIDTH) for _ in range(4)))
    groups = [{"params": list(layer.parameters())} for layer in model]
    engine = _zero_engine(zero, model, groups)
    for _ in range(steps):
        dist.barrier()
        engine.backward(engine(torch.ones(1, WIDTH)).square().mean())
        engine.step()


def _begin() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(7)
    deepspeed.init_distributed("gloo")


def main(pipeline: int, microbatches: int) -> None:
    """Trains on virtual GPUs until it is killed, as a process that torchrun starts."""
    stream.set_device(int(os.environ["LOCAL_RANK"]))
    stream.attach_to_torch_distributed()
    _begin()
    engine, _ = _engine(pipeline, 1, microbatches)
    data = (torch.ones(1, WIDTH), torch.zeros(1, WIDTH))
    while True:
        engine.train_batch(iter([data] * microbatches))
        stream.synchronize()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
