"""Trainings by Hugging Face's Trainer and by Accelerate that know nothing of Joulepath, on CPUs."""

from __future__ import annotations

import os
import tempfile
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from tests.trainer.frameworks.ran import RAN, Ran

WIDTH, MICROBATCHES = 4, 2


class Model(nn.Module):  # type: ignore[misc]
    """A layer that notes when it is gone through; the Trainer wants a loss of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 1)
        self.forwards = 0

    def forward(self, value: torch.Tensor, **_others: Any) -> dict[str, torch.Tensor]:
        value = Ran.apply(self.layer(value), 0, self.forwards)
        self.forwards += self.training
        return {"loss": value.square().mean()}


class Samples(Dataset[Any]):  # type: ignore[misc]
    """Ones."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"value": torch.ones(WIDTH)}


class Notes(TrainerCallback):  # type: ignore[misc]
    """Takes down what has run in each iteration."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.orders: list[list[list[Any]]] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """The optimizer has stepped."""
        self.orders.append(list(RAN))
        RAN.clear()
        self.model.forwards = 0

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        """Forwards of evaluations aren't the training's."""
        RAN.clear()


def train_by_trainer(rank: int, steps: int, evaluate_every: int) -> list[list[list[Any]]]:
    """Trains with gradient accumulation, and evaluates now and then."""
    torch.set_num_threads(1)
    world, model = torch.distributed.get_world_size(), Model()
    notes = Notes(model)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            ddp_backend="gloo",
            max_steps=steps,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=MICROBATCHES,
            eval_strategy="steps",
            eval_steps=evaluate_every,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            label_names=[],
            prediction_loss_only=True,
        )
        samples = Samples(steps * MICROBATCHES * world)
        Trainer(model, arguments, train_dataset=samples, eval_dataset=Samples(world), callbacks=[notes]).train()
    return notes.orders


def train_by_accelerate(rank: int, steps: int) -> list[list[list[Any]]]:
    """A loop of one's own, with gradient accumulation."""
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=MICROBATCHES)
    model = Model()
    notes = Notes(model)
    trained, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.01))
    for number in range(steps * MICROBATCHES):
        with accelerator.accumulate(trained):
            accelerator.backward(trained(torch.ones(1, WIDTH))["loss"])
            optimizer.step()
            optimizer.zero_grad()
        if number % MICROBATCHES == MICROBATCHES - 1:
            notes.on_step_end()
    return notes.orders
