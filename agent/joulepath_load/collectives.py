"""All-reduces in a loop, as one of two ranks: how long each takes, as its GPU tells.

The loop never ends by itself, since a rank that stopped would leave the other one waiting: both are killed. Each line
of input is answered by the seconds of the all-reduces since the one before.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

__all__ = ["reduce_for_ever"]

_ELEMENTS: Final = 16 << 20
_SMALL_ELEMENTS: Final = 1 << 16
_BACKLOG: Final = 4
_KEPT: Final = 20_000


def reduce_for_ever(rank: int, store: str, backend: str) -> None:
    """Joins the other rank through a file, and reduces.

    Args:
        rank: 0 or 1.
        store: The file.
        backend: "nccl" for GPUs, "gloo" for CPUs.
    """
    import torch
    import torch.distributed as dist

    took_s: deque[float] = deque(maxlen=_KEPT)
    try:
        on_gpu = backend == "nccl"
        if on_gpu:
            torch.cuda.set_device(0)
        dist.init_process_group(backend, init_method=f"file://{store}", rank=rank, world_size=2)
        data = torch.ones(_ELEMENTS if on_gpu else _SMALL_ELEMENTS, device="cuda:0" if on_gpu else "cpu")
        timed = _timed_by_events(torch, took_s) if on_gpu else _timed_by_host(took_s)
        data.zero_()
        dist.all_reduce(data)
    except Exception as error:
        print(json.dumps({"refused": f"{type(error).__name__}: {error}"[:400]}), flush=True)
        return
    name = f"NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}" if on_gpu else "gloo on the CPU"
    print(json.dumps({"name": name, "bytes": data.numel() * data.element_size()}), flush=True)
    threading.Thread(target=_answer, args=(took_s,), daemon=True).start()
    while True:
        timed(lambda: dist.all_reduce(data))


def _timed_by_events(torch: Any, took_s: deque[float]) -> Callable[[Callable[[], object]], None]:
    pending: deque[tuple[Any, Any]] = deque()

    def timed(reduce: Callable[[], object]) -> None:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        reduce()
        end.record()
        pending.append((begin, end))
        if len(pending) > _BACKLOG:
            first, last = pending.popleft()
            last.synchronize()
            took_s.append(first.elapsed_time(last) / 1e3)

    return timed


def _timed_by_host(took_s: deque[float]) -> Callable[[Callable[[], object]], None]:
    def timed(reduce: Callable[[], object]) -> None:
        begun_s = time.perf_counter()
        reduce()
        took_s.append(time.perf_counter() - begun_s)

    return timed


def _answer(took_s: deque[float]) -> None:
    for _ in sys.stdin:
        seconds = [took_s.popleft() for _ in range(len(took_s))]
        print(json.dumps({"seconds": seconds}), flush=True)
    os._exit(0)
