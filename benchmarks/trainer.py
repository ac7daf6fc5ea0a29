"""What the trainer costs, and how near the model comes to trainings by real frameworks.

    python -m benchmarks.trainer [--only NAME ...] [--time-scale 0.7]

- `trainer_overhead.py`, beside this file: microseconds for each instruction, milliseconds at a Python's start.
- `profiling.py`: how well the frontier is known after a sweep, and after how many iterations.
- The model: a training of four ranks (stages of different length, two a rank where the schedule has them) runs on
  virtual GPUs at default clocks. What ranks report of it is all that the model is made of, by the operator's own code:
  its iteration beside the one that is measured. On a machine that does something else besides, that is noise.

Virtual GPUs throughout. Writes benchmarks/results/trainer.json; exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final

import frameworks
from benchmarks.closed_loop import ROOT, Training, of_framework, report_of, trained
from joulepath_crds import Instruction
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.observation import NodeJob
from joulepath_operator.figures.delays import measure_delays
from joulepath_operator.figures.order import executed
from joulepath_planner import Pipeline, Point, Profile, recorded, simulate
from real_cluster import cores_awake

RESULTS: Final = ROOT / "benchmarks/results"
ITERATIONS: Final = 30
LONGEST_S: Final = 300.0
LAG_MS: Final = 5.0
DEFAULT_MHZ: Final = 1410
MOST_OFF: Final = 0.01


@dataclass(frozen=True, slots=True)
class Case:
    """A training whose iteration is modelled."""

    name: str
    framework: str
    environment: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


def cases() -> list[Case]:
    """Each framework's versions, with each of its schedules."""
    found = [Case(f"torch, {one}", "torch", None, {"schedule": one}) for one in ("ScheduleGPipe", "Schedule1F1B")]
    for one in ("Interleaved1F1B", "InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV"):
        found.append(Case(f"torch, Schedule{one}", "torch", None, {"schedule": f"Schedule{one}", "chunks": 2}))
    for environment in frameworks.names("megatron"):
        for words, options in (
            ("1F1B, exchanges one by one", {}),
            ("1F1B, batched exchanges", {"batched": True}),
            ("interleaved, overlap", {"chunks": 2}),
            ("interleaved, batched exchanges", {"chunks": 2, "batched": True}),
        ):
            found.append(Case(f"{environment}, {words}", "megatron", environment, options))
    found += [Case(f"{one}, PipelineEngine", "deepspeed", one) for one in frameworks.names("deepspeed")]
    return found


def gang_of(made: Training, scale: float) -> Gang:
    """What its ranks report of a training, once they have measured it."""
    with trained(made, scale, LAG_MS) as agent:
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
        profile=Profile({key: points(max(fmean(times), 1e-9)) for key, times in seconds.items()}, 0.0),
        transfer_s=delays.transfers_s,
        overhead_s=delays.overheads_s,
        tail_s=delays.tails_s,
    )
    return simulate(pipeline).iteration_time_s, repr(delays.exchanges)


def model_error(case: Case, scale: float) -> dict[str, Any]:
    """How far the model is from the job."""
    gang = gang_of(of_framework(case.framework, case.environment, case.options), scale)
    seconds, learnt = modelled_s(gang)
    measured = gang.control_time_s
    return {"case": case.name, "measured_s": measured, "error": seconds / measured - 1, "learnt": learnt}


def figures(program: str, name: str) -> dict[str, Any]:
    """What another benchmark measures now."""
    subprocess.run([sys.executable, str(ROOT / "benchmarks" / program)], check=False)
    found: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return found


def main() -> None:
    """Measures and writes all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="models of these trainings alone, by a part of their names")
    parser.add_argument("--time-scale", type=float, default=0.7)
    options = parser.parse_args()
    wanted = [case for case in cases() if options.only is None or any(word in case.name for word in options.only)]
    models = []
    with cores_awake():
        for case in wanted:
            try:
                models.append(model_error(case, options.time_scale))
            except frameworks.NoPythonError as error:
                print(f"{case.name}: {error}")
                continue
            print(json.dumps(models[-1]), flush=True)
    bars = [(f"model against job, {one['case']}", abs(one["error"]), MOST_OFF) for one in models]
    if options.only is None:
        cost = figures("trainer_overhead.py", "trainer_overhead.json")
        known = figures("profiling.py", "profiling.json")["bars"]
        bars += [
            ("us an instruction, host markers", cost["overhead_us_per_computation"]["host markers"], 30.0),
            ("ms at a Python's start", cost["start_up_ms"], 0.6),
            ("frontier after a sweep, worst error", known["worst_error"], 0.01),
            ("iterations of a sweep, most", known["most_iterations"], 60.0),
        ]
    judged = [{"name": name, "value": value, "limit": most, "holds": value <= most} for name, value, most in bars]
    if options.only is None:
        document = {"virtual": True, "time_scale": options.time_scale, "bars": judged, "models": models}
        (RESULTS / "trainer.json").write_text(json.dumps(document, indent=1) + "\n")
    for bar in judged:
        print(f"{'holds ' if bar['holds'] else 'MISSED'} {bar['name']}: {bar['value']:.4g}, limit {bar['limit']}")
    raise SystemExit(not all(bar["holds"] for bar in judged))


if __name__ == "__main__":
    main()
