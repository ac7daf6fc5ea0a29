"""A process that lives for months keeps little of what Python stores between two collections of everything."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from joulepath_warden.wire import MAX_MESSAGE_BYTES, SOCKET_NAME, Answer, Request, Verb
from tests.agent.room import PATIENCE_S, Room, wait_until

KEPT: Final = 2000
"""Tuples of each length that Python keeps for the next ones."""
TUPLES: Final = f"""
import sys, time
from joulepath_warden.garbage import collect_often
if sys.argv[2:]:
    collect_often()
before = sys.getallocatedblocks()
for length in range(1, 20):
    for _ in range({KEPT}):
        tuple(one for one in range(length))
deadline_s = time.monotonic() + float(sys.argv[1])
while (kept := sys.getallocatedblocks() - before) > {KEPT} and time.monotonic() < deadline_s:
    time.sleep(0.01)
print(kept)
"""
HELD: Final = (2, 4, 6, 8)
MOST_KIB: Final = 350


@pytest.mark.parametrize("often", [False, True])
def test_tuples_of_generators_are_not_kept_where_everything_is_collected_often(often: bool) -> None:
    command = [sys.executable, "-c", TUPLES, *([str(PATIENCE_S), "often"] if often else ["0"])]
    blocks = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert (blocks <= KEPT) if often else (blocks > 15 * KEPT)


def test_a_warden_that_hears_beats_all_day_does_not_grow(room: Callable[..., Room]) -> None:
    made = room(gpus=HELD[-1])
    warden = made.warden()

    def own_kib() -> int:
        found = re.search(r"^Anonymous: +(\d+) kB", Path(f"/proc/{warden.pid}/smaps_rollup").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1])

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as clocks:

        def ask(request: Request) -> Answer:
            clocks.send(request.encode())
            return Answer.decode(clocks.recv(MAX_MESSAGE_BYTES))

        def leased(uuids: tuple[str, ...]) -> bool:
            return not ask(Request(Verb.TAKE, uuids)).refused

        clocks.connect(str(made.state_dir / SOCKET_NAME))
        clocks.recv(MAX_MESSAGE_BYTES)
        begun_kib = 0
        for count in HELD:
            uuids = tuple(made.gpus.uuids[:count])
            wait_until(partial(leased, uuids[-2:]), "they are leased")
            begun_kib = begun_kib or own_kib()
            for _ in range(KEPT):
                ask(Request(Verb.BEAT, uuids))
    assert own_kib() - begun_kib < MOST_KIB
