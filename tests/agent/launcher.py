"""Starts the programs of these tests by forking, so that what takes long to import is imported once.

    python -m tests.agent.launcher FD

FD is a socket. Each message {"program", "arguments", "environment"}, with descriptors for standard input, output and
error, is answered with {"pid"}; {"wait": pid} with {"status"}, None while it runs.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import traceback
from typing import Any

import local_clocks  # noqa: F401  # what is slow


def run(program: str) -> int:
    """Runs the main function of a module; its exit status."""
    try:
        status = importlib.import_module(program).main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return status or 0


def start(order: dict[str, Any], descriptors: list[int], connection: socket.socket) -> int:
    """Forks; returns the child's pid."""
    pid = os.fork()
    if pid == 0:
        connection.close()
        os.setsid()
        for standard, descriptor in enumerate(descriptors):
            os.dup2(descriptor, standard)
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(order["environment"])
        sys.argv = [order["program"], *order["arguments"]]
        status = run(order["program"])
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    for descriptor in descriptors:
        os.close(descriptor)
    return pid


def main() -> None:
    """Until the other end is closed."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if not message:
            return
        order = json.loads(message)
        if "wait" in order:
            pid, status = os.waitpid(order["wait"], os.WNOHANG)
            answer = {"status": os.waitstatus_to_exitcode(status) if pid else None}
        else:
            answer = {"pid": start(order, list(descriptors), connection)}
        connection.send(json.dumps(answer).encode())


if __name__ == "__main__":
    main()
