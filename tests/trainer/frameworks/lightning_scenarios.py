"""Trainings by Lightning that know nothing of Joulepath, on CPUs."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader

from tests.trainer.frameworks.ran import RAN, Ran

WIDTH, MICROBATCHES = 4, 2


class Module(lightning.LightningModule):  # type: ignore[misc]
    """A layer that notes when it is gone through, and what has run in each iteration."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, 1)
        self.forwards = 0
        self.orders: list[list[list[Any]]] = []

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        """Called within the optimizer's step."""
        value = Ran.apply(self.layer(batch), 0, self.forwards)
        self.forwards += 1
        return value.square().mean()

    def validation_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        """After an epoch."""
        return self.layer(batch).mean()

    def on_train_batch_end(self, *_: Any) -> None:
        """Once the optimizer has stepped."""
        if self.forwards == MICROBATCHES:
            self.orders.append(list(RAN))
            RAN.clear()
            self.forwards = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


def train(rank: int, steps: int, validate_every: int) -> list[list[list[Any]]]:
    """Trains with gradient accumulation, and validates now and then."""
    torch.set_num_threads(1)
    logging.getLogger("lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    module = Module()
    batches = DataLoader(torch.ones(2 * steps * MICROBATCHES, WIDTH), batch_size=1)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=torch.distributed.get_world_size(),
        strategy="ddp",
        max_steps=steps,
        accumulate_grad_batches=MICROBATCHES,
        val_check_interval=validate_every * MICROBATCHES,
        limit_val_batches=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, batches, DataLoader(torch.ones(2, WIDTH), batch_size=1))
    return module.orders
