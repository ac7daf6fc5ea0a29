"""Does a node's agent grow in a day? 24 simulated hours on virtual GPUs; writes benchmarks/results/soak.json.

    .venv/bin/python benchmarks/soak.py [--hours 24] [--pace 200]

Clocks, warden and the agent's own command run as processes of their own. What a day brings comes to them through the
borders that it comes through in a cluster (shared pages, sockets, the kubelet's gRPC, HTTP), so many times as fast:
iterations of 12 s last 60 ms. A job trains all day on four GPUs, another one for each hour on the other four; ranks
reconnect, half of the jobs are killed; plans are made anew all the time; watches of the API server end, fail and break
off; agent and clocks lose each other once an hour; Prometheus and the kubelet's probes ask as often as ever.

Real: all three parts, but that the clocks take a rank's word for its pod (`lab/local_clocks.py`). Doubles: the API
server and the kubelet, which can't be made faster. Not as often as in a day is what a timer of the parts does, though
timers are set to less where that is possible (`tests/agent/soaking/part.py`): `fed` in the result tells how often each
thing was done. The energy counter moves every 50 ms, a hundredth as often as in a day. What a rank's measurements keep
(edges, runs, blocks, timelines) is bounded by numbers that a day hardly reaches; they are set to less as well, so that
what is bounded is full after a tenth of the day. The environment is that of the agent's image.

Of each part, resident memory, descriptors, threads and mappings are looked at twice a second. The first tenth of the
day fills what is bounded; the bars are on the slope over the rest (Theil and Sen's: the median of those of all pairs).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.agent.soaking.day import Day, Look, Node  # noqa: E402

RESULT: Final = ROOT / "benchmarks/results/soak.json"
FILLS: Final = 0.1
"""Share of the day in which what is bounded may fill."""
LIMITS: Final = {"resident_kib": 400.0, "descriptors": 4.0, "threads": 4.0, "mappings": 8.0}
"""Growth in a day. Pools of threads and connections open what they need when they first need it, up to four each: what
leaks with each job, parting or watch would be 24 and more."""
MOST_MIB: Final = 120.0


def growth(looks: Sequence[Look], what: str) -> float:
    """In the whole time, by the slope after what is bounded has filled."""
    whole_s = looks[-1].at_s - looks[0].at_s
    kept = [look for look in looks if look.at_s - looks[0].at_s > FILLS * whole_s]
    slopes = [(getattr(b, what) - getattr(a, what)) / (b.at_s - a.at_s) for a, b in combinations(kept, 2)]
    return float(statistics.median(slopes)) * whole_s


def judged(day: Day) -> Iterator[dict[str, Any]]:
    """The bars: values must not exceed their limits."""
    resident_mib = sum(looks[-1].resident_kib for looks in day.looks.values()) / 1024
    name = "resident memory of all parts at the end of the day, MiB"
    yield {"name": name, "value": resident_mib, "limit": MOST_MIB, "holds": resident_mib <= MOST_MIB}
    for what, limit in LIMITS.items():
        for part, looks in day.looks.items():
            value = growth(looks, what)
            name = f"growth of {what.replace('_kib', ' memory, KiB,').replace('_', ' ')} of the {part} in a day"
            yield {"name": name, "value": value, "limit": limit, "holds": value <= limit}


def main() -> None:
    """Lives a day and writes what grew."""
    parser = argparse.ArgumentParser(description="Does a node's agent grow in a day?")
    parser.add_argument("--hours", type=float, default=24.0, help="simulated (default 24)")
    parser.add_argument("--pace", type=float, default=200.0, help="simulated seconds in one (default 200)")
    options = parser.parse_args()
    with ExitStack() as stack:
        day = Day(Node(options.pace, stack), options.hours)
        begun_s = time.monotonic()
        day.pass_by()
        took_s = time.monotonic() - begun_s
    bars = list(judged(day))
    thinned = {
        part: [
            [round(look.at_s - looks[0].at_s, 1), look.resident_kib, look.descriptors, look.threads, look.mappings]
            for look in looks[:: max(1, len(looks) // 48)]
        ]
        for part, looks in day.looks.items()
    }
    result = {"bars": bars, "hours": options.hours, "minutes": took_s / 60, "fed": day.fed, "looks": thinned}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(day.fed, indent=1))
    for bar in bars:
        print(f"{'holds ' if bar['holds'] else 'MISSED'} {bar['name']}: {bar['value']:.4g}, limit {bar['limit']}")


if __name__ == "__main__":
    main()
