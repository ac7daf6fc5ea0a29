"""What a model itself sees run, as a function in its midst notes it; on virtual GPUs that function computes, too."""

from __future__ import annotations

import os
from typing import Any

import torch

from virtual_gpus import stream

__all__ = ["RAN", "Ran"]

RAN: list[list[Any]] = []
"""Kind, stage and microbatch of what has run in this iteration."""


class Ran(torch.autograd.Function):  # type: ignore[misc]
    """Notes when something was gone forward and back through."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, stage: int, microbatch: int) -> torch.Tensor:
        ctx.what = stage, microbatch
        _compute("F", stage, microbatch)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        _compute("B", *ctx.what)
        return gradient.clone(), None, None


def _compute(kind: str, stage: int, microbatch: int) -> None:
    RAN.append([kind, stage, microbatch])
    if "VIRTUAL_GPUS_STATE" in os.environ:
        stream.launch(stage, kind)
