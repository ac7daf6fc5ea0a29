"""A log that nobody reads: nothing waits for it but the thread that writes it."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from joulepath_agent.logs import Log
from tests.agent.room import Room, wait_until
from tests.agent.test_agent import LOW_MHZ, held

FILLING = b"x" * 4096


@pytest.fixture
def clogged() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe that is full."""
    read, write = os.pipe2(os.O_CLOEXEC)
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, len(FILLING))
    os.write(write, FILLING)
    yield read, write
    os.close(read)
    os.close(write)


@pytest.fixture
def begin() -> Iterator[Callable[[int, int], Log]]:
    """Factory of a log; afterwards, what logged before does again."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield lambda descriptor, lines: Log("INFO", "%(message)s", descriptor, lines)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_lines_beyond_the_queue_are_dropped_counted_and_told_of(
    clogged: tuple[int, int], begin: Callable[[int, int], Log]
) -> None:
    read, write = clogged
    log = begin(write, 10)
    for number in range(100):
        logging.getLogger("any").info("line %d", number)
    assert not log.flush(0.0)
    assert os.read(read, 1 << 16) == FILLING
    assert log.flush(60)
    lines = os.read(read, 1 << 16).decode().splitlines()
    dropped = [int(line.split()[0]) for line in lines if "dropped" in line]
    assert lines[0] == "line 0"
    assert log.dropped_lines() == sum(dropped) >= 80
    assert sum(dropped) + len(lines) - len(dropped) == 100


def test_clocks_whose_log_nobody_reads_follow_end_leases_and_end(
    room: Callable[..., Room], clogged: tuple[int, int]
) -> None:
    made = room(time_scale=0.1)
    agent = made.agent(log=clogged[1])
    peer = made.peer(iterations=100_000)
    assert peer.hear()["accepted"]
    agent.plans(held())
    wait_until(lambda: made.clock() == LOW_MHZ, "the clock is locked")
    peer.send(signal.SIGSTOP)
    wait_until(lambda: made.clock() == 0, "the clock is reset")
    peer.send(signal.SIGCONT)
    wait_until(lambda: made.clock() == LOW_MHZ, "the clock is locked again")
    agent.clocks.send(signal.SIGTERM)
    assert agent.clocks.wait() == 0
    assert made.clock() == 0


PROGRAM = """
import logging, sys
from joulepath_agent.logs import Log
log = Log("INFO", "%(message)s", 2)
logging.getLogger("any").info("a line")
print(log.flush(0.1), flush=True)
"""


def test_a_process_whose_log_nobody_reads_ends(clogged: tuple[int, int]) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=clogged[1], timeout=60, check=True
    )
    assert ended.stdout == b"False\n"
