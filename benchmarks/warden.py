"""Seconds until default clocks, by who dies or stops, on virtual GPUs; writes benchmarks/results/warden.json.

    .venv/bin/python benchmarks/warden.py [--runs 5]

A training process runs under a plan that holds one clock; then one process of the node is killed or stopped, and the
driver tells when it was ordered to return to default clocks. The bar is 2 s for the death of any one process.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.agent.room import Launcher, Process, Room  # noqa: E402
from tests.agent.test_agent import LOW_MHZ, held  # noqa: E402
from tests.warden.faulty_node import new_gpus  # noqa: E402

DEATHS: Final = {
    "clocks killed": ("clocks", signal.SIGKILL),
    "clocks stopped": ("clocks", signal.SIGSTOP),
    "clocks terminated": ("clocks", signal.SIGTERM),
    "warden killed": ("warden", signal.SIGKILL),
    "warden stopped": ("warden", signal.SIGSTOP),
    "warden terminated": ("warden", signal.SIGTERM),
    "training process killed": ("peer", signal.SIGKILL),
}
LONGEST_NS: Final = 60 * 10**9


def seconds_locked(room: Room, dies: str, by: signal.Signals) -> float:
    """From the signal to the order of default clocks."""
    warden, agent = room.warden(), room.agent()
    processes: dict[str, Process] = {"warden": warden, "clocks": agent.clocks}
    processes["peer"] = room.peer(iterations=100_000)
    assert processes["peer"].hear()["accepted"]
    agent.plans(held())
    while room.clock() != LOW_MHZ:
        time.sleep(0.01)
    processes[dies].send(by)
    begun_ns = time.monotonic_ns()
    while not (resets := [one for one in room.gpus.orders() if one.taken_ns >= begun_ns and not one.high_mhz]):
        if time.monotonic_ns() - begun_ns > LONGEST_NS:
            raise TimeoutError(f"{dies}, {by.name}: still locked after {LONGEST_NS / 1e9:.0f} s")
        time.sleep(0.01)
    return (resets[0].taken_ns - begun_ns) / 1e9


def main() -> None:
    """Prints a line for each way to die, and writes all."""
    parser = argparse.ArgumentParser(description="Seconds until default clocks, by who dies.")
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    launcher, results = Launcher(), {}
    for name, (dies, by) in DEATHS.items():
        took_s = []
        for _ in range(runs):
            with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
                took_s.append(seconds_locked(Room(launcher, new_gpus(Path(folder)), Path(folder), stack), dies, by))
        results[name] = {"median_s": statistics.median(took_s), "longest_s": max(took_s), "runs": runs}
        print(f"{name:24} median {statistics.median(took_s):5.2f} s, longest {max(took_s):5.2f} s", flush=True)
    launcher.close()
    (ROOT / "benchmarks/results/warden.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
