"""Processes of a simulated place."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from pathlib import Path
from simulated_nodes.place import process
with process(["sleep", "1000"], Path(sys.argv[1])) as started:
    print(started.pid, flush=True)
    sys.stdin.read()
"""


def test_whoever_is_killed_leaves_no_servers_behind(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "log")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as starter:
        assert starter.stdout is not None
        server = os.pidfd_open(int(starter.stdout.readline()))
        starter.kill()
    ended, _, _ = select.select([server], [], [], 30)
    if not ended:
        signal.pidfd_send_signal(server, signal.SIGKILL)
    os.close(server)
    assert ended
