"""Random sequences of faults on a node of virtual GPUs: is a clock left locked? Writes benchmarks/results/faults.json.

    .venv/bin/python benchmarks/faults.py [--sequences 500] [--steps 12] [--seed 0]

Real processes of clocks, agent, warden and ranks are killed, stopped, doubled and started again, the driver hangs,
fails and loses GPUs, journal and sockets are spoiled (`tests/warden/faulty_node.py`). In between, and at the end, once
the driver answers and a warden runs, every clock that nobody may hold must be default; the first that isn't ends the
run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.agent.room import Launcher  # noqa: E402
from tests.warden.faulty_node import NodeMachine  # noqa: E402


def main() -> None:
    """Runs them and writes what was seen."""
    parser = argparse.ArgumentParser(description="Random sequences of faults.")
    parser.add_argument("--sequences", type=int, default=500)
    parser.add_argument("--steps", type=int, default=12, help="faults of a sequence at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    NodeMachine.launcher = Launcher()
    chosen = settings(
        max_examples=options.sequences,
        stateful_step_count=options.steps,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    began = time.monotonic()
    try:
        run_state_machine_as_test(seed(options.seed)(NodeMachine), settings=chosen)
    finally:
        NodeMachine.launcher.close()
    seen = NodeMachine.seen
    results = {
        "sequences": seen.sequences,
        "sequences_with_a_locked_clock": seen.locked,
        "orders": seen.orders,
        "clocks_let_go_of": len(seen.took_s),
        "median_s": statistics.median(seen.took_s) if seen.took_s else 0.0,
        "longest_s": max(seen.took_s, default=0.0),
        "left_locked": 0,
        "seed": options.seed,
        "minutes": (time.monotonic() - began) / 60,
    }
    (ROOT / "benchmarks/results/faults.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
