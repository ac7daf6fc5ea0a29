"""What the operator and its agents ask of a control plane, on simulated nodes; writes benchmarks/results/operator.json.

    .venv/bin/python -m benchmarks.operator [--scenario one-job] [--nodes 8 64 256 1024]

Real are etcd, the API server (its own limits, priorities and fairness), the chart's CRDs, rights and policies, the
operator's own process, its planner, the agents' code that talks to the API server (with a token of each node) and the
conductor that follows plans. Simulated are nodes, pods and GPUs: no kubelet, no controller, and what ranks measure is
computed from GPT-3's published profile, in iterations of 2.9 s (see `lab/simulated_nodes`). Each case has a control
plane of its own, begins with all objects there and no report, and is told as it is when its time is over.

- one-job: pipelines of 8 stages, 12 microbatches and 8 tensor-parallel peers, on so many nodes of 8 GPUs
- many-jobs: so many of them, of 64 ranks on 8 nodes each
- idle-plans: so many EnergyPlans without a job
- wide: 64 stages and 512 microbatches, a rank each, on so many nodes

CPU seconds, bytes and counts are the machine's as they are; times depend on what else runs there, which is told beside
them. Cases that aren't run again stay in the result as they were. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.operator.bars import bars, growth
from benchmarks.operator.case import Case, run

RESULT: Final = Path(__file__).parents[1] / "results/operator.json"
SCENARIOS: Final = ("one-job", "many-jobs", "idle-plans", "wide")
NODES_A_JOB: Final = 8


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """The smallest of each scenario first."""
    for scenario in options.scenario:
        match scenario:
            case "one-job":
                yield from (Case(scenario, nodes, nodes, jobs=1) for nodes in sorted(options.nodes))
            case "many-jobs":
                yield from (Case(scenario, jobs, NODES_A_JOB, jobs=jobs) for jobs in sorted(options.jobs))
            case "idle-plans":
                yield from (Case(scenario, plans, idle=plans) for plans in sorted(options.plans))
            case _:
                shape = {"stages": 64, "microbatches": 512, "tensor_parallel": 1}
                yield from (Case(scenario, nodes, nodes, jobs=1, **shape) for nodes in sorted(options.wide_nodes))


def main() -> int:
    """Runs the cases, and writes the result after each."""
    parser = argparse.ArgumentParser(description="What the operator asks of a control plane, on simulated nodes.")
    parser.add_argument("--scenario", choices=SCENARIOS, nargs="+", default=SCENARIOS, help="(default: all)")
    sizes = {"nodes": (8, 64, 256, 1024), "jobs": (10, 100), "plans": (100, 1000), "wide-nodes": (8,)}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, nargs="+", default=default, help=f"(default: {default})")
    parser.add_argument("--limit-s", type=float, default=1200, help="of a case, until its plans are in force")
    parser.add_argument("--steady-s", type=float, default=120, help="for which each is looked at afterwards")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    judged: list[dict[str, Any]] = []
    for case in cases(options):
        print(f"{case.scenario}, {case.size}:", flush=True)
        judged = write(run(case, options.limit_s, options.steady_s))
    for bar in judged:
        value = "not measured" if bar["value"] is None else f"{bar['value']:.4g} at size {bar['measured_at_size']}"
        print(f"{'holds ' if bar['holds'] else 'MISSED'} {bar['name']}: {value}, limit {bar['limit']}")
    return 0 if all(bar["holds"] for bar in judged) else 1


def write(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Puts a case beside all that were ever run, in the place of the same one before; the bars of all."""
    before = json.loads(RESULT.read_text())["cases"] if RESULT.exists() else []
    known = [one for one in before if _name(one) != _name(found)] + [found]
    known.sort(key=lambda one: (SCENARIOS.index(one["scenario"]), one["size"]))
    judged = list(bars(known))
    simulated = "nodes, pods and GPUs are simulated; etcd, API server, operator, planner and the agents' calls are real"
    result = {"what": simulated, "bars": judged, "growth": growth(known), "cases": known}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    return judged


def _name(case: dict[str, Any]) -> tuple[str, int]:
    return case["scenario"], case["size"]


if __name__ == "__main__":
    sys.exit(main())
