"""Records the order in which torch executes the computations of its pipeline schedules: `data/orders.json`.

Each case is a real training over gloo, of stages of one small layer, one forked process for each rank. What counts is
when the methods of a stage are called; the second step is recorded, as the first one also infers shapes. A forward
whose activations are sent only after the computation behind it is written as one with that: `0:F3+3:B1`.

`python tests/planner/record_orders.py` records all cases anew; with names of schedules it prints the smallest case of
each instead.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed import pipelining
from torch.distributed.pipelining.stage import _PipelineStageBase

RECORDED = Path(__file__).parent / "data" / "orders.json"
CLASSES = {
    "gpipe": "ScheduleGPipe",
    "1f1b": "Schedule1F1B",
    "interleaved-1f1b": "ScheduleInterleaved1F1B",
    "zb-h1": "ScheduleInterleavedZeroBubble",
    "interleaved-zb": "ScheduleInterleavedZeroBubble",
    "zbv": "ScheduleZBVZeroBubble",
    "dualpipev": "ScheduleDualPipeV",
}
WIDTH = 4

Shape = dict[str, Any]


CHUNKS = {"interleaved-1f1b": (2, 3), "interleaved-zb": (2, 3), "zbv": (2,), "dualpipev": (2,)}


def cases() -> Iterator[Shape]:
    """name, ranks, chunks (stages of a rank) and microbatches of each run; the smallest of a name comes first."""
    for name in CLASSES:
        shapes = [(2, 4), (3, 6), (4, 4), (4, 8), (4, 12)]
        if name not in ("1f1b", "dualpipev"):  # torch wants as many microbatches as stages for these
            shapes += [(2, 3), (4, 2)]
        for ranks, microbatches in shapes:
            for chunks in CHUNKS.get(name, (1,)):
                if name != "dualpipev" or microbatches >= 2 * ranks:
                    yield {"name": name, "ranks": ranks, "chunks": chunks, "microbatches": microbatches}


def record(case: Shape) -> list[str]:
    """What each rank executed, as text such as `0:F0 0:B0`."""
    forked = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        pipes = [forked.Pipe(duplex=False) for _ in range(case["ranks"])]
        ranks = [
            forked.Process(target=_train, args=(rank, case, f"{folder}/store", pipes[rank][1]))
            for rank in range(case["ranks"])
        ]
        for rank, (_, sending) in zip(ranks, pipes, strict=True):
            rank.start()
            sending.close()
        orders = [receiving.recv() for receiving, _ in pipes]
        for rank in ranks:
            rank.join()
    return orders


def _train(rank: int, case: Shape, store: str, answer: Any) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=case["ranks"])
    count = case["ranks"] * case["chunks"]
    indices = [rank + case["ranks"] * chunk for chunk in range(case["chunks"])]
    if case["name"] in ("zbv", "dualpipev"):
        indices = [rank, count - 1 - rank]
    device = torch.device("cpu")
    stages = [pipelining.PipelineStage(torch.nn.Linear(WIDTH, WIDTH), index, count, device) for index in indices]
    looped = case["name"] not in ("gpipe", "1f1b")
    schedule = getattr(pipelining.schedules, CLASSES[case["name"]])(
        stages if looped else stages[0], case["microbatches"], loss_fn=torch.nn.functional.mse_loss
    )
    data = torch.randn(case["microbatches"], WIDTH)
    seen: list[str] = []
    late: set[str] = set()
    _observe(seen, late)
    for _ in range(2):
        seen.clear()
        late.clear()
        schedule.step(*([data] if 0 in indices else []), **({"target": data} if count - 1 in indices else {}))
    answer.send("".join(label + ("+" if label in late else " ") for label in seen).strip())
    answer.close()
    distributed.barrier()
    os._exit(0)  # torch takes seconds to tidy up


def _observe(seen: list[str], late: set[str]) -> None:
    def wrapped(original: Callable[..., Any], kind: Callable[[dict[str, Any]], str]) -> Callable[..., Any]:
        def call(stage: Any, microbatch: int, *args: Any, **kwargs: Any) -> Any:
            seen.append(f"{stage.stage_index}:{kind(kwargs)}{microbatch}")
            return original(stage, microbatch, *args, **kwargs)

        return call

    def send(stage: Any, microbatch: int) -> Any:
        label = f"{stage.stage_index}:F{microbatch}"
        if label != seen[-1]:
            assert label == seen[-2]
            late.add(label)
        return sends(stage, microbatch)

    base = _PipelineStageBase
    sends, base.get_fwd_send_ops = base.get_fwd_send_ops, send
    base.forward_one_chunk = wrapped(base.forward_one_chunk, lambda _: "F")
    base.backward_one_chunk = wrapped(
        base.backward_one_chunk, lambda given: "B" if given.get("full_backward", True) else "I"
    )
    base.backward_weight_one_chunk = wrapped(base.backward_weight_one_chunk, lambda _: "W")


def main(names: list[str]) -> None:
    if names:
        smallest = [next(case for case in cases() if case["name"] == name) for name in names]
        print(json.dumps([{**case, "orders": record(case)} for case in smallest]), flush=True)
    else:
        runs = [{**case, "orders": record(case)} for case in cases()]
        RECORDED.write_text(json.dumps({"torch": torch.__version__, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
    os._exit(0)
