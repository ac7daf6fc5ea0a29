"""Imports torch once, with the hook in place, and then forks the ranks of one training after another.

A program, not a module: it is started as a training process is (its ``sitecustomize`` is Joulepath's), reads one JSON
object a line from its input, {"scenario", "world", "store", ...}, and answers with one line: the ranks' results.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

import torch.distributed as dist

from trainer import scenarios


def rank_process(rank: int, order: dict[str, Any]) -> Any:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(order["world"]))
    dist.init_process_group("gloo", f"file://{order['store']}", rank=rank, world_size=order["world"])
    try:
        return getattr(scenarios, order["scenario"])(rank, **order.get("arguments", {}))
    finally:
        dist.destroy_process_group()


def run(order: dict[str, Any]) -> list[Any]:
    children = []
    for rank in range(order["world"]):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            try:
                answer = json.dumps({"result": rank_process(rank, order)})
            except BaseException:
                answer = json.dumps({"error": traceback.format_exc()})
            os.write(writing, answer.encode())
            scenarios.end_of_process()
        os.close(writing)
        children.append((pid, reading))
    answers = []
    for pid, reading in children:
        with os.fdopen(reading) as stream:
            answers.append(json.loads(stream.read() or '{"error": "it died"}'))
        os.waitpid(pid, 0)
    return answers


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
    # Nothing is left to tidy up, and torch takes seconds for it.
    os._exit(0)
