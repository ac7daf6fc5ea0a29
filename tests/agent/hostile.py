"""A process in a training pod that means no good.

python hostile.py SOCKET bytes GPU      sends bad messages, prints what each is answered and whether all were closed
python hostile.py SOCKET rank GPU       is accepted, fills its page with nonsense, then sends a bad record
python hostile.py SOCKET wide GPU       is accepted, then tells of iterations of many stages that last for days
python hostile.py SOCKET deep GPU       the same, each of other instructions, and none over the agent's budget
python hostile.py SOCKET chatty GPU     is accepted, then sends small records as fast as can be, prints how many
"""

from __future__ import annotations

import contextlib
import json
import mmap
import random
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product

from joulepath_trainer.wire.messages import Hello, InstructionSpan, IterationRecord, PipelinePlace
from joulepath_trainer.wire.page import MARKER_OFFSET, PAGE_BYTES, MarkerEvent, PageWriter
from joulepath_trainer.wire.parts import parts_of
from tests.agent.peer import connect_as_pod, sealed_page

ITERATIONS = 250


def hello(gpu: str) -> Hello:
    """A hello that can be read."""
    return Hello(1, 1, 2, 0, gpu, "stream", PipelinePlace("Schedule1F1B", 1, 1, (0,), (0, 1)))


def be_accepted(path: str, said: Hello) -> tuple[socket.socket, memoryview]:
    """The connection and the page of a rank that was accepted; prints what the agent said."""
    connection, descriptor = connect_as_pod(path), sealed_page()
    socket.send_fds(connection, [said.encode()], [descriptor])
    print(json.dumps(connection.recv(4096).decode()), flush=True)
    return connection, memoryview(mmap.mmap(descriptor, PAGE_BYTES))


def send_bytes(path: str, gpu: str) -> None:
    """Each bad message on a connection of its own."""
    good = json.loads(hello(gpu).encode())["hello"]
    messages = [
        b"\0" * 70_000,
        b"not json",
        b"[" * 60_000,
        b'{"hello": {}}',
        json.dumps({"hello": {**good, "rank": -1}}).encode(),
        json.dumps({"hello": {**good, "pipeline": {"stages": "x"}}}).encode(),
        IterationRecord(1, 1.0, 1.0).encode(),
    ]
    for message in messages:
        connection = connect_as_pod(path)
        connection.send(message)
        print(json.dumps(connection.recv(4096).decode()), flush=True)


def be_rank(path: str, gpu: str) -> None:
    """An accepted rank with a page full of nonsense."""
    connection, page = be_accepted(path, hello(gpu))
    chance = random.Random(1)
    writer = PageWriter(page)
    for _ in range(300):
        event = chance.choice(list(MarkerEvent))
        writer.pass_marker(writer.announce(event, chance.randrange(1 << 32), "F", chance.randrange(9), 65535))
        time.sleep(0.001)
    for _ in range(50):
        at = chance.randrange(0, PAGE_BYTES - 4096, 4)
        page[at : at + 4096] = chance.randbytes(4096)
        page[MARKER_OFFSET : MARKER_OFFSET + 4] = chance.randbytes(4)
        time.sleep(0.002)
    connection.send(IterationRecord(1, 1.0, 1.0, (InstructionSpan("F", 7, 0, 0.0, 1.0),)).encode())
    print(json.dumps(connection.recv(4096).decode()), flush=True)
    time.sleep(60)


def be_large(path: str, gpu: str, stages: int, microbatches: int, varied: bool) -> None:
    """An accepted rank whose records are as large as can be, and say that each iteration lasts for ten days."""
    place = PipelinePlace("ScheduleInterleavedZeroBubble", stages, 1, tuple(range(stages)), (0, 1))
    connection, page = be_accepted(path, replace(hello(gpu), pipeline=place))
    writer = PageWriter(page)
    records = []
    for first in range(0, 16 * microbatches if varied else 1, microbatches):
        names = product(range(stages), "FBIW", range(first, first + microbatches))
        spans = tuple(InstructionSpan(kind, stage, microbatch, -9e5, 9e5) for stage, kind, microbatch in names)
        records.append(IterationRecord(0, 9e5, 9e5, spans))
    for iteration in range(ITERATIONS):
        writer.pass_marker(writer.announce(MarkerEvent.STEP_BEGIN, iteration))
        record = replace(records[iteration % len(records)], iteration=max(0, iteration - 1))
        with contextlib.suppress(BlockingIOError):
            for part in parts_of(record):
                connection.send(part, socket.MSG_DONTWAIT)
        time.sleep(0.02)
    print(json.dumps("told"), flush=True)
    time.sleep(60)


def be_chatty(path: str, gpu: str) -> None:
    """An accepted rank that sends as many records as are taken in some seconds."""
    connection, _ = be_accepted(path, hello(gpu))
    record, sent, begun_s = IterationRecord(1, 1.0, 1.0).encode(), 0, time.monotonic()
    while (took_s := time.monotonic() - begun_s) < 3.0:
        try:
            connection.send(record, socket.MSG_DONTWAIT)
            sent += 1
        except BlockingIOError:
            time.sleep(0.001)
    print(json.dumps([sent, took_s]), flush=True)
    time.sleep(60)


def main() -> None:
    """Means no good."""
    be: dict[str, Callable[[str, str], None]] = {
        "bytes": send_bytes,
        "rank": be_rank,
        "chatty": be_chatty,
        "wide": partial(be_large, stages=1000, microbatches=2, varied=False),
        "deep": partial(be_large, stages=16, microbatches=42, varied=True),
    }
    be[sys.argv[2]](sys.argv[1], sys.argv[3])


if __name__ == "__main__":
    main()
