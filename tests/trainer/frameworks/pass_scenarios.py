"""Trainings without a pipeline that know nothing of Joulepath, on CPUs."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from torch import nn
from torch._dynamo import trace_rules
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import joulepath_trainer as joulepath
from tests.trainer.frameworks.ran import RAN, Ran
from virtual_gpus import stream

WIDTH = 4


class Model(nn.Module):  # type: ignore[misc]
    """Two layers, in whose midst it is noted what runs; numbers the forwards of an iteration."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)
        self.forwards = 0

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        value = Ran.apply(self.first(value), 0, self.forwards)
        self.forwards += self.training
        return self.last(value).square().mean()


class Training:
    """A loop around a model; what has run in each iteration, and the losses."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(7)
        self.model, self.data = Model(), torch.ones(1, WIDTH)
        self.runs: Callable[..., torch.Tensor] = self.model
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.orders: list[list[list[Any]]] = []
        self.losses: list[float] = []

    def replicate(self) -> None:
        """By DDP."""
        self.runs = DistributedDataParallel(self.model)

    def shard(self) -> None:
        """By FSDP2, whose parameters are others."""
        fully_shard(self.model.first)
        fully_shard(self.model)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)

    def back(self) -> None:
        """A forward and a backward."""
        loss = self.runs(self.data)
        loss.backward()
        self.losses.append(loss.item())

    def evaluate(self, batches: int = 1) -> None:
        """Which leaves no trace in what has run."""
        ran = list(RAN)
        self.model.eval()
        with torch.no_grad():
            for _ in range(batches):
                self.runs(self.data)
        self.model.train()
        RAN[:] = ran

    def end(self) -> None:
        """Of the iteration; the optimizer has stepped."""
        self.optimizer.zero_grad()
        self.orders.append(list(RAN))
        RAN.clear()
        self.model.forwards = 0

    def told(self) -> dict[str, Any]:
        return {"orders": self.orders, "losses": self.losses}


def train(
    rank: int,
    steps: int,
    kind: str = "",
    microbatches: int = 1,
    ragged: int = -1,
    evaluate_after: int = -1,
    evaluate_before: int = -1,
) -> dict[str, Any]:
    """Trains by DDP or FSDP2; one iteration has a microbatch more, it evaluates after the optimizer's step of another
    or before that of one."""
    training = Training()
    {"": lambda: None, "ddp": training.replicate, "fsdp": training.shard}[kind]()
    for number in range(steps):
        torch.distributed.barrier()
        for _ in range(microbatches + (number == ragged)):
            training.back()
        if number == evaluate_before:
            training.evaluate()
        training.optimizer.step()
        training.end()
        if number == evaluate_after:
            training.evaluate()
    return training.told()


def train_with_steps_that_are_skipped(rank: int, steps: int, skipped: int) -> dict[str, Any]:
    """As a GradScaler that has found an overflow."""
    training = Training()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=10**6)
    for number in range(steps):
        torch.distributed.barrier()
        loss = training.runs(training.data) * (float("inf") if number == skipped else 1.0)
        scaler.scale(loss).backward()
        scaler.step(training.optimizer)
        scaler.update()
        if number == skipped:
            training.optimizer.zero_grad()
            training.model.forwards = 0
        else:
            training.end()
    return training.told()


def train_two_models(rank: int, steps: int) -> dict[str, Any]:
    """As a GAN: two optimizers take turns, the first after two backwards."""
    training, other = Training(), Training()
    for _ in range(steps):
        torch.distributed.barrier()
        training.back()
        training.back()
        training.optimizer.step()
        training.optimizer.zero_grad()
        training.end()
        training.model.forwards = 1
        other.model.forwards = 0
        other.back()
        other.optimizer.step()
        other.optimizer.zero_grad()
    return training.told()


def train_by_closure(rank: int, steps: int) -> dict[str, Any]:
    """By LBFGS, which goes forward and back within its step, now more often and now less."""
    training = Training()
    training.optimizer = torch.optim.LBFGS(
        training.model.parameters(), lr=1e-3, tolerance_grad=0.0, tolerance_change=0.0
    )

    def closure() -> torch.Tensor:
        training.optimizer.zero_grad()
        loss = training.runs(training.data)
        loss.backward()
        training.losses.append(loss.item())
        return loss

    for number in range(steps):
        torch.distributed.barrier()
        training.optimizer.param_groups[0]["max_iter"] = 2 + number % 3
        training.optimizer.step(closure)
        training.end()
    return training.told()


def train_within_checkpoints(rank: int, steps: int) -> dict[str, Any]:
    """What is recomputed goes back within the backward."""
    training = Training()
    training.data.requires_grad_(True)
    training.runs = lambda data: checkpoint(training.model, data, use_reentrant=True)
    for _ in range(steps):
        torch.distributed.barrier()
        training.back()
        training.optimizer.step()
        training.end()
    return training.told()


def train_with_a_teacher(rank: int, steps: int) -> dict[str, Any]:
    """Another model is put into evaluation in each iteration."""
    training, teacher = Training(), nn.Linear(1, 1)
    for _ in range(steps):
        torch.distributed.barrier()
        teacher.eval()
        training.back()
        training.optimizer.step()
        training.end()
    return training.told()


def train_compiled_with_a_teacher(rank: int, steps: int) -> dict[str, Any]:
    """What is compiled puts another model into evaluation; how often it was compiled."""
    compiled: list[Any] = []

    def count(graph: Any, _inputs: Any) -> Any:
        compiled.append(graph)
        return graph

    training, teacher = Training(), nn.Linear(WIDTH, 1)

    def forward(data: torch.Tensor) -> torch.Tensor:
        teacher.eval()
        return training.model.last(data).square().mean() - teacher(data).mean()

    training.runs = torch.compile(forward, backend=count, fullgraph=True)
    for _ in range(steps):
        torch.distributed.barrier()
        training.back()
        training.optimizer.step()
        training.end()
    return {"compiled": len(compiled)}


def train_compiled_whole(rank: int, steps: int) -> dict[str, Any]:
    """The whole iteration is compiled, a part of it told by hand; functions of the trainer that the compiler takes."""
    training, data = Training(), torch.ones(1, WIDTH)

    @torch.compile(backend="eager", fullgraph=True)  # type: ignore[untyped-decorator]
    def forward() -> torch.Tensor:
        with joulepath.instruction("F"):
            return training.model.last(training.model.first(data)).square().mean()

    @torch.compile(backend="eager")  # type: ignore[untyped-decorator]
    def iterate() -> None:
        forward().backward()
        training.optimizer.step()

    for _ in range(steps):
        torch.distributed.barrier()
        iterate()
        training.optimizer.zero_grad()
    taken = [
        f"{name}.{function.__qualname__}"
        for name in ("observer", "session", "iterations", "frameworks.passes", "frameworks.optimizers")
        for _, holder in inspect.getmembers(sys.modules[f"joulepath_trainer.{name}"], inspect.isclass)
        for _, function in inspect.getmembers(holder, inspect.isfunction)
        if "joulepath_trainer/" in function.__code__.co_filename and not trace_rules.check(function.__code__)
    ]
    return {"compiled": taken}


def train_ever_differently(rank: int, steps: int) -> dict[str, Any]:
    """The number of microbatches is another one in each iteration."""
    training = Training()
    for number in range(steps):
        torch.distributed.barrier()
        for _ in range(1 + number % 3):
            training.back()
        training.optimizer.step()
        training.end()
    return training.told()


def train_by_another_engine(rank: int, steps: int) -> dict[str, Any]:
    """It goes back without torch's function."""
    training = Training()
    for _ in range(steps):
        torch.distributed.barrier()
        loss = training.runs(training.data)
        torch.autograd.Variable._execution_engine.run_backward(
            (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
        )
        training.optimizer.step()
        training.end()
    return training.told()


def reduce(group: Any, bucket: Any) -> Any:
    """As collectives do: after the work that made what they reduce."""
    stream.synchronize()
    return allreduce_hook(group, bucket)


reduce.__annotations__.clear()  # DDP takes texts for wrong types


def main(options: dict[str, Any]) -> None:
    """Trains by DDP on virtual GPUs until it is killed, as a process that torchrun starts; may evaluate, too."""
    every = options.get("evaluate_every", 0)
    stream.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("gloo")
    training = Training()
    training.replicate()
    training.runs.register_comm_hook(None, reduce)  # type: ignore[attr-defined]
    for number in count(1):
        for _ in range(options.get("microbatches", 1)):
            training.back()
        training.optimizer.step()
        training.end()
        if every and number % every == 0:
            training.evaluate(batches=10)
        stream.synchronize()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
