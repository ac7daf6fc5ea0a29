"""The image's environment keeps the heap of its processes small: threads have no stores of what they have freed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

import pytest

from tests.agent.soaking.day import IN_THE_IMAGE

THREADS: Final = 12
"""As many as the agent has."""
KEPT_KIB: Final = """
import ctypes, sys, threading

class Heap(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena a b c d e f used free g".split()]

mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Heap
begin, done = (threading.Barrier(int(sys.argv[1]) + 1) for _ in range(2))

def use():
    begin.wait()
    for size in range(528, 1000, 16):
        [bytes(size) for _ in range(7)].clear()
    done.wait()
    begin.wait()

for _ in range(int(sys.argv[1])):
    threading.Thread(target=use).start()
before = mallinfo2().used
begin.wait()
done.wait()
print((mallinfo2().used - before) // 1024)
begin.wait()
"""


@pytest.mark.parametrize(
    ("environment", "keeps"), [({}, True), (IN_THE_IMAGE, False)], ids=["anywhere", "in the image"]
)
def test_threads_keep_nothing_of_what_they_have_freed(environment: Mapping[str, str], keeps: bool) -> None:
    command = [sys.executable, "-c", KEPT_KIB, str(THREADS)]
    outside = {name: value for name, value in os.environ.items() if name not in IN_THE_IMAGE}
    ran = subprocess.run(command, env={**outside, **environment}, check=True, capture_output=True, text=True)
    kept_kib = int(ran.stdout)
    assert (kept_kib > 500) if keeps else (kept_kib < 100), f"{kept_kib} KiB are kept"
