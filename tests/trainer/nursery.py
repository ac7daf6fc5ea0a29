"""Imports torch once, with the hook in place, and then forks the ranks of one training after another.

    python -m tests.trainer.nursery LISTENER SCENARIOS

It is started as a training process is (its `sitecustomize` is Joulepath's). LISTENER is the
descriptor of a unix socket that listens for the processes of the test run; each says in which folder it works, and then
sends one JSON object a line, {"scenario", "world", "store", ...}, answered with one line: the ranks' results. It ends
with the last of them.
SCENARIOS is the module whose functions are the scenarios.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import socket
import sys
import traceback
from types import ModuleType
from typing import Any

import torch.distributed as dist


def rank_process(scenarios: ModuleType, rank: int, order: dict[str, Any]) -> Any:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(order["world"]))
    dist.init_process_group("gloo", f"file://{order['store']}", rank=rank, world_size=order["world"])
    try:
        return getattr(scenarios, order["scenario"])(rank, **order.get("arguments", {}))
    finally:
        dist.destroy_process_group()


def end_of_process() -> None:
    """What the interpreter does at its end, without destroying what the parent of a fork owns."""
    sys.stdout.flush()
    atexit._run_exitfuncs()
    sys.stderr.flush()
    os._exit(0)


def run(scenarios: ModuleType, order: dict[str, Any]) -> list[Any]:
    children = []
    for rank in range(order["world"]):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            try:
                answer = json.dumps({"result": rank_process(scenarios, rank, order)})
            except BaseException:
                answer = json.dumps({"error": traceback.format_exc()})
            os.write(writing, answer.encode())
            end_of_process()
        os.close(writing)
        children.append((pid, reading))
    answers = []
    for pid, reading in children:
        with os.fdopen(reading) as stream:
            answers.append(json.loads(stream.read() or '{"error": "it died"}'))
        os.waitpid(pid, 0)
    return answers


def serve(client: socket.socket, scenarios: ModuleType) -> None:
    """One process of the test run, in its own folder: the hook has a relative path for the agent's socket."""
    with client.makefile("rw") as lines:
        os.chdir(lines.readline().strip())
        os.dup2(os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        print("ready", file=lines, flush=True)
        for line in lines:
            print(json.dumps(run(scenarios, json.loads(line))), file=lines, flush=True)


def main(listener: socket.socket, scenarios: ModuleType) -> None:
    path: str = listener.getsockname()
    listener.settimeout(0.2)
    serving: set[int] = set()
    served = False
    while serving or not served:
        try:
            client, _ = listener.accept()
        except TimeoutError:
            serving -= {pid for pid in serving if os.waitpid(pid, os.WNOHANG)[0]}
            continue
        served = True
        with client:
            if (pid := os.fork()) == 0:
                listener.close()
                serve(client, scenarios)
                # Nothing is left to tidy up, and torch takes seconds for it.
                os._exit(0)
        serving.add(pid)
    os.unlink(path)
    os._exit(0)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), importlib.import_module(sys.argv[2]))
