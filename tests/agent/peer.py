"""A training process on a virtual GPU that speaks the wire format by itself: stream markers, event times, records.

`order` has labels of instructions, with their stage (`3:F0`) if there are several `stages`.

    python peer.py SOCKET '{"ordinal": 0, "iterations": 100, ...}'

Prints one JSON line for the agent's answer, then one for each iteration: [iteration, period in seconds].
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import random
import socket
import sys
import time

from joulepath_crds import Instruction
from joulepath_trainer.marking.cuda import Driver, StreamMarks
from joulepath_trainer.memory import OwnPage
from joulepath_trainer.wire.messages import Hello, InstructionSpan, IterationRecord, PipelinePlace, Reply
from joulepath_trainer.wire.page import MARKER_OFFSET, PAGE_BYTES, Ending, MarkerEvent, PageWriter
from joulepath_trainer.wire.parts import parts_of
from joulepath_trainer.wire.protocol import WireError
from virtual_gpus import stream

PARTED = Instruction(0, "", Ending.PARTED)
"""What its marker has in the place of an instruction."""
DEFAULTS = {
    "ordinal": 0,
    "rank": 0,
    "world_size": 4,
    "attempt": 0,
    "stages": [0],
    "stage_count": 4,
    "order": ["F0", "F1", "B0", "F2", "B1", "F3", "B2", "B3"],
    "iterations": 100,
    "waits_s": [0.0, 0.004],
    "tail_s": 0.0,
    "evaluates_every": 1 << 30,
    "evaluates_s": 0.0,
    "marks": True,
    "children": 0,
    "gpu_uuid": None,
    "stall_at": -1,
    "stall_s": 0.0,
    "other_order_from": 1 << 30,
    "tensor": 0,
    "tensor_parallel": 1,
    "ranks": None,
    "in_step": None,
    "late_s": 0.0,
    "patient": False,
}


def connect_as_pod(path: str) -> socket.socket:
    """A connection whose own address names the pod that POD_UID does, with room for large messages."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    connection.bind(f"\0{os.environ['POD_UID']}/{os.getpid()}/{time.monotonic_ns()}")
    connection.connect(path)
    return connection


def connect(path: str, hello: Hello, *, patient: bool = False) -> tuple[socket.socket, memoryview]:
    """Says hello; returns the connection and the shared page, or exits with what was said; tries again if patient."""
    while True:
        try:
            connection, descriptor = connect_as_pod(path), sealed_page()
            socket.send_fds(connection, [hello.encode()], [descriptor])
            reply = Reply.decode(connection.recv(4096))
        except (OSError, WireError):
            if not patient:
                raise
        else:
            if reply.accepted or not patient:
                break
        time.sleep(0.1)
    said = {"accepted": reply.accepted, "reason": reply.reason, "final": reply.final, "pid": os.getpid()}
    print(json.dumps(said), flush=True)
    if not reply.accepted:
        sys.exit(3)
    return connection, memoryview(mmap.mmap(descriptor, PAGE_BYTES))


def sealed_page() -> int:
    """A page as the trainer makes it: its descriptor."""
    return OwnPage().descriptor


class Together:
    """Two processes that begin each instruction together, as tensor-parallel peers do; each writes to its own pipe."""

    def __init__(self, reads: str, writes: str) -> None:
        self._pipes = [os.open(path, os.O_RDWR) for path in (reads, writes)]

    def wait(self) -> None:
        """Until the other one has come as far."""
        os.write(self._pipes[1], b"x")
        os.read(self._pipes[0], 1)


def main() -> None:
    """Trains."""
    options = {**DEFAULTS, **json.loads(sys.argv[2])}
    stream.set_device(options["ordinal"])
    driver = Driver.in_use()
    assert driver is not None
    stages = tuple(options["stages"])
    order = [Instruction.parse(label, stages[0] if len(stages) == 1 else None) for label in options["order"]]
    ranks = tuple(options["ranks"] or range(options["world_size"]))
    microbatches = 1 + max(one.microbatch for one in order)
    pipeline = PipelinePlace("Schedule1F1B", options["stage_count"], microbatches, stages, ranks)
    uuid = options["gpu_uuid"] or driver.current_gpu()
    hello = Hello(
        options["rank"],
        options["ordinal"],
        options["world_size"],
        options["attempt"],
        uuid,
        "stream",
        pipeline,
        tensor=options["tensor"],
        tensor_parallel=options["tensor_parallel"],
    )
    together = Together(**options["in_step"]) if options["in_step"] else None
    connection, page = connect(sys.argv[1], hello, patient=options["patient"])
    for _ in range(options["children"]):  # as DataLoader workers: they inherit everything and outlive their parent
        if os.fork() == 0:
            time.sleep(15)
            os._exit(0)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    marks, writer, chance = StreamMarks(driver, lambda: 0, address, MARKER_OFFSET), PageWriter(page), random.Random(7)

    def mark(event: MarkerEvent, iteration: int, one: Instruction | None = None) -> int:
        stage, kind, microbatch, _ = one or (0, "", 0, 0)
        return marks.stamp(0, writer.announce(event, iteration, kind, stage, microbatch))

    pending: tuple[int, int, int, list[tuple[Instruction, int, int]]] | None = None
    parted: int | None = None
    for iteration in range(options["iterations"]):
        begin = mark(MarkerEvent.STEP_BEGIN, iteration)
        if pending is not None:
            stream.synchronize()
            _send(connection, driver, pending, parted or begin)
        if iteration == options["other_order_from"]:
            order[0], order[1] = order[1], order[0]
        stamps = []
        for one in order:
            if wait_s := chance.choice(options["waits_s"]):
                stream.synchronize()
                time.sleep(wait_s)
            if together is not None:
                stream.synchronize()
                together.wait()
                time.sleep(options["late_s"])
            first = mark(MarkerEvent.BEGIN, iteration, one)
            stream.launch(one.stage, one.kind)
            stamps.append((one, first, mark(MarkerEvent.END, iteration, one)))
            if iteration == options["stall_at"] and one == order[len(order) // 2]:
                stream.synchronize()
                time.sleep(options["stall_s"])
        end = mark(MarkerEvent.STEP_END, iteration)
        stream.synchronize()
        time.sleep(options["tail_s"])
        evaluates = iteration % options["evaluates_every"] == 0
        parted = mark(MarkerEvent.STEP_END, iteration, PARTED) if evaluates and options["marks"] else None
        time.sleep(options["evaluates_s"] if evaluates else 0.0)
        pending = (iteration, begin, end, stamps)


def _send(
    connection: socket.socket,
    driver: Driver,
    done: tuple[int, int, int, list[tuple[Instruction, int, int]]],
    next_begin: int,
) -> None:
    iteration, begin, end, stamps = done
    since = driver.seconds_between
    spans = tuple(
        InstructionSpan(one.kind, one.stage, one.microbatch, since(begin, first), since(begin, last))
        for one, first, last in stamps
    )
    record = IterationRecord(iteration, since(begin, end), since(begin, next_begin), spans)
    with contextlib.suppress(OSError):
        for part in parts_of(record):
            connection.send(part, socket.MSG_DONTWAIT)
    print(json.dumps([iteration, record.period_s]), flush=True)


if __name__ == "__main__":
    main()
