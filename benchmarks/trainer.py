"""What the trainer costs, and how near the model comes to trainings by real frameworks.

    python -m benchmarks.trainer [--only NAME ...] [--time-scale 0.7]

- `trainer_overhead.py`, beside this file: microseconds for each instruction, milliseconds at a Python's start.
- `profiling.py`: how well the frontier is known after a sweep, and after how many iterations.
- The model: trainings of docs/frameworks.md's table, of four ranks (stages of different length, two a rank where the
  schedule has them), run on virtual GPUs at default clocks. What ranks report of it is all that the model is made of,
  by the operator's own code: its iteration beside the one that is measured. On a busy machine that is noise.

Virtual GPUs throughout. Writes benchmarks/results/trainer.json; exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from statistics import fmean
from typing import Any, Final

import frameworks
from benchmarks.closed_loop import ROOT, Training, of_framework, report_of, trained
from framework_table import MODELS, ROWS, Row
from joulepath_crds import Instruction
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.observation import NodeJob
from joulepath_operator.figures.order import executed
from joulepath_operator.figures.timing.delays import measure_delays
from joulepath_planner import Instruction as PlannerInstruction
from joulepath_planner import Pipeline, Point, Profile, recorded, simulate
from real_cluster import cores_awake

RESULTS: Final = ROOT / "benchmarks/results"
ITERATIONS: Final = 30
LONGEST_S: Final = 300.0
LAG_MS: Final = 5.0
DEFAULT_MHZ: Final = 1410
MOST_OFF: Final = 0.01


def gang_of(made: Training, scale: float) -> Gang:
    """What its ranks report of a training, once they have measured it."""
    with trained(made, scale, LAG_MS) as (agent, _):
        limit = time.monotonic() + LONGEST_S
        while time.monotonic() < limit:
            time.sleep(1.0)
            report = report_of(agent)
            gang = Gang.of([NodeJob("node", job, report.gpus) for job in report.jobs])
            if gang is not None and gang.complete and is_measured(gang):
                return gang
    raise TimeoutError(f"its ranks have not measured {ITERATIONS} iterations in {LONGEST_S:.0f} s")


def is_measured(gang: Gang) -> bool:
    """Whether all that the model is made of has been seen often enough."""
    known = gang.ordered and gang.control_time_s > 0 and all(rank.timeline for rank in gang.ranks)
    return known and min(rank.iteration for rank in gang.ranks) >= ITERATIONS


def points(time_s: float) -> tuple[Point, ...]:
    """An instruction that takes so long at default clocks; a profile has another clock, too, which nothing runs at."""
    return Point(DEFAULT_MHZ, time_s, 1.0), Point(DEFAULT_MHZ - 15, 1.01 * time_s, 0.99)


def modelled_s(gang: Gang) -> tuple[float, str]:
    """Seconds of an iteration by the model, and what was learnt of how messages leave and are awaited."""
    delays = measure_delays(gang, gang.topology())
    seconds: dict[tuple[int, str], list[float]] = {}
    for rank in gang.pipeline():
        for one in rank.timeline:
            kind = Instruction.parse(one.instruction, one.stage).kind
            seconds.setdefault((one.stage, kind), []).append(one.end_s - one.begin_s)
    pipeline = Pipeline(
        schedule=recorded([delays.exchanges.written(executed(rank)) for rank in gang.pipeline()]),
        profile=Profile(
            {key: points(max(fmean(times) - delays.fixed_s.get(key, 0.0), 1e-9)) for key, times in seconds.items()}, 0.0
        ),
        transfer_s=delays.transfers_s,
        overhead_s=delays.overheads_s,
        tail_s=delays.tails_s,
        gap_s={PlannerInstruction.parse(label): gap_s for label, gap_s in delays.gaps_s.items()},
        extra_s={PlannerInstruction.parse(label): extra_s for label, extra_s in delays.extras_s.items()},
    )
    return simulate(pipeline).iteration_time_s, repr(delays.exchanges)


def model_error(row: Row, scale: float) -> dict[str, Any]:
    """How far the model is from the job."""
    gang = gang_of(of_framework(row.kind, row.environment, dict(row.options)), scale)
    seconds, learnt = modelled_s(gang)
    measured = gang.control_time_s
    error = seconds / measured - 1
    return {"case": row.name, "measured_s": measured, "error": error, "learnt": learnt, "time_scale": scale}


def figures(program: str, name: str, now: bool) -> dict[str, Any]:
    """What another benchmark measures now, or has measured."""
    if now:
        subprocess.run([sys.executable, str(ROOT / "benchmarks" / program)], check=False)
    found: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return found


def main() -> None:
    """Measures and writes all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = "models of these trainings alone, by a part of their names; the other figures stay"
    parser.add_argument("--only", nargs="+", help=what)
    parser.add_argument("--time-scale", type=float, default=0.7)
    options = parser.parse_args()
    wanted = [row for row in ROWS if row.modelled]
    if options.only is not None:
        wanted = [row for row in wanted if any(word in row.name for word in options.only)]
    before = json.loads(MODELS.read_text())["models"] if MODELS.exists() else []
    models: dict[str, dict[str, Any]] = {one["case"]: one for one in before}
    with cores_awake():
        for row in wanted:
            try:
                models[row.name] = model_error(row, options.time_scale)
            except frameworks.NoPythonError as error:
                print(f"{row.name}: {error}")
                continue
            print(json.dumps(models[row.name]), flush=True)
    told = [models[row.name] for row in ROWS if row.name in models]
    bars = [bar(f"model against job, {one['case']}", abs(one["error"]), MOST_OFF) for one in told]
    cost = figures("trainer_overhead.py", "trainer_overhead.json", options.only is None)
    known = figures("profiling.py", "profiling.json", options.only is None)["bars"]
    bars += [
        bar("us an instruction, host markers", cost["overhead_us_per_computation"]["host markers"], 30.0),
        bar("ms at a Python's start", cost["start_up_ms"], 0.6),
        bar("frontier after a sweep, worst error", known["worst_error"], 0.01),
        bar("iterations of a sweep, most", known["most_iterations"], 60.0),
    ]
    MODELS.write_text(json.dumps({"virtual": True, "bars": bars, "models": told}, indent=1) + "\n")
    for one in bars:
        print(f"{'holds ' if one['holds'] else 'MISSED'} {one['name']}: {one['value']:.4g}, limit {one['limit']}")
    raise SystemExit(not all(one["holds"] for one in bars))


def bar(name: str, value: float, limit: float) -> dict[str, Any]:
    """A figure beside what it may be at most."""
    return {"name": name, "value": value, "limit": limit, "holds": value <= limit}


if __name__ == "__main__":
    main()
