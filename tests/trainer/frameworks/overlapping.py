"""A function for torch's `OVERLAP_F_B`, as users write them: it waits for what both need, and then computes both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from torch.distributed.pipelining import schedules

__all__ = ["overlap"]

Place = tuple[int, int]
"""Stage and microbatch."""


def overlap(
    schedule: Any,
    stages: Sequence[Any],
    computing: Callable[[Place, Place], AbstractContextManager[None]],
    *,
    threads: bool = False,
) -> None:
    """Registers it; `computing` is entered with the places of both while it computes. threads: each input is waited for
    by one of its own."""
    local = {stage.stage_index: stage for stage in stages}

    def both(action: Any, ctx: Any) -> None:
        with ThreadPoolExecutor(2) as pool:
            list((pool.map if threads else map)(partial(_wait, ctx=ctx), action.sub_actions))
        forward, backward = action.sub_actions
        with computing(_place(forward), _place(backward)):
            _forward(local, ctx, *_place(forward))
            _backward(local, ctx, *_place(backward))

    schedule.register_custom_function(schedules.OVERLAP_F_B, both)


def _place(action: Any) -> Place:
    return action.stage_index, action.microbatch_index


def _wait(action: Any, ctx: Any) -> None:
    is_forward = action.computation_type is schedules.FORWARD
    received = ctx.schedule_ref.fwd_recv_ops if is_forward else ctx.schedule_ref.bwd_recv_ops
    if _place(action) in received:
        schedules._wait_batch_p2p(received.pop(_place(action)))


def _forward(local: dict[int, Any], ctx: Any, index: int, number: int) -> None:
    output = local[index].forward_one_chunk(number, ctx.arg_mbs[number], ctx.kwarg_mbs[number])
    ctx.schedule_ref._maybe_compute_loss(local[index], output, ctx.target_mbs, number)
    if index + 1 in local:
        local[index + 1].set_local_fwd_input(output, number)


def _backward(local: dict[int, Any], ctx: Any, index: int, number: int) -> None:
    loss = ctx.schedule_ref._maybe_get_loss(local[index], number)
    ctx.schedule_ref.backward_counter[index] += 1
    local[index].backward_one_chunk(number, loss=loss)
    if index - 1 in local:
        local[index - 1].set_local_bwd_input(local[index].get_local_bwd_output(number), number)
