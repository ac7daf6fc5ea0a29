"""The ranks of a job that trains without GPUs' work: markers and records, at their pace.

    python -m tests.agent.soaking.ranks SOCKET PERIOD_S RECONNECTS_S GPU...

They say {} once all are accepted, and train until standard input ends. Each so many seconds one of them connects anew.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
from collections.abc import Iterator, Sequence

from joulepath_rules import Instruction
from joulepath_trainer.memory import OwnPage
from joulepath_trainer.wire.messages import Hello, InstructionSpan, IterationRecord, PipelinePlace, Reply
from joulepath_trainer.wire.page import MarkerEvent
from joulepath_trainer.wire.protocol import WireError
from tests.agent.soaking import ORDER


class Rank:
    """One training process's side, without the training."""

    def __init__(self, path: str, number: int, uuids: Sequence[str], period_s: float) -> None:
        size = len(uuids)
        place = PipelinePlace("Schedule1F1B", size, 4, (number,), tuple(range(size)))
        self._hello = Hello(number, number, size, 0, uuids[number], "stream", place)
        self._path, self._period_s, self._page = path, period_s, OwnPage()
        self._order = [Instruction.parse(label, number) for label in ORDER]
        self.connect()

    def connect(self) -> None:
        """Says hello until it is accepted."""
        while True:
            with contextlib.suppress(OSError, WireError):
                self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                self._connection.bind(f"\0{os.environ['POD_UID']}/{os.getpid()}/{time.monotonic_ns()}")
                self._connection.connect(self._path)
                socket.send_fds(self._connection, [self._hello.encode()], [self._page.descriptor])
                if (reply := Reply.decode(self._connection.recv(4096))).accepted:
                    return
                self._connection.close()
                print(reply.reason, file=sys.stderr, flush=True)
            time.sleep(0.05)

    def hang_up(self) -> None:
        """As a trainer does that was paused for too long."""
        self._connection.close()

    def moments(self) -> Iterator[float]:
        """Trains; yields the seconds until it wants to go on."""
        each_s, iteration = self._period_s / (len(ORDER) + 1), 0
        while True:
            self._pass(MarkerEvent.STEP_BEGIN, iteration)
            begin_s, spans = time.monotonic(), []
            for one in self._order:
                first_s = time.monotonic()
                self._pass(MarkerEvent.BEGIN, iteration, one)
                yield each_s
                self._pass(MarkerEvent.END, iteration, one)
                span = first_s - begin_s, time.monotonic() - begin_s
                spans.append(InstructionSpan(one.kind, one.stage, one.microbatch, *span))
            self._pass(MarkerEvent.STEP_END, iteration)
            end_s = time.monotonic() - begin_s
            yield each_s
            record = IterationRecord(iteration, end_s, time.monotonic() - begin_s, tuple(spans))
            with contextlib.suppress(OSError):
                self._connection.send(record.encode(), socket.MSG_DONTWAIT)
            iteration += 1

    def _pass(self, event: MarkerEvent, iteration: int, one: Instruction | None = None) -> None:
        stage, kind, microbatch, _ = one or (0, "", 0, 0)
        writer = self._page.writer
        writer.pass_marker(writer.announce(event, iteration, kind, stage, microbatch))


def train(path: str, period_s: float, reconnects_s: float, uuids: Sequence[str]) -> None:
    """Trains on these GPUs until standard input ends."""
    ranks = [Rank(path, number, uuids, period_s) for number in range(len(uuids))]
    print("{}", flush=True)
    trained = [rank.moments() for rank in ranks]
    due_s, reconnect_s = time.monotonic(), time.monotonic() + reconnects_s
    while not select.select([sys.stdin], [], [], max(0.0, due_s - time.monotonic()))[0]:
        due_s += max(next(one) for one in trained)
        due_s = max(due_s, time.monotonic() - period_s)
        if time.monotonic() > reconnect_s:
            reconnect_s += reconnects_s
            ranks[0].hang_up()
            ranks[0].connect()
            ranks.append(ranks.pop(0))


if __name__ == "__main__":
    train(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
