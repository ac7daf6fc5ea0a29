"""What a model itself sees run, as a function in its midst notes it; on virtual GPUs that function computes, too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from virtual_gpus import stream

__all__ = ["RAN", "Ran", "together"]

RAN: list[list[Any]] = []
"""Kind, stage and microbatch of what has run in this iteration; and of a pair those of its backward."""
_together: list[int] = []
"""Of the pair that runs."""


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


@contextmanager
def together(forward: tuple[int, int], backward: tuple[int, int]) -> Iterator[None]:
    """What is gone through meanwhile are the forward and the backward of one pair."""
    _together.extend((*forward, *backward))
    RAN.append(["P", *_together])
    if "VIRTUAL_GPUS_STATE" in os.environ:
        stream.launch(forward[0], f"F&{backward[0]}:B")
    try:
        yield
    finally:
        _together.clear()


def _compute(kind: str, stage: int, microbatch: int) -> None:
    if _together:
        assert [stage, microbatch] == (_together[:2] if kind == "F" else _together[2:])
        return
    RAN.append([kind, stage, microbatch])
    if "VIRTUAL_GPUS_STATE" in os.environ:
        stream.launch(stage, kind)
