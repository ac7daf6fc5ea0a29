"""How far plans are above their bound where hulls are coarse or clocks few.

    python benchmarks/gaps.py [--profiles FILE ...]

80 drawn profiles whose forwards are fastest below the top clock, as those of GPUs that throttle are (2 to 8 stages, 4
to 24 microbatches, 1F1B, interleaved and ZBV, 4 to 16 clocks, blocking power low and high), each planned at T_min and
2%, 5% and 10% over it; and 12 with 3 clocks only. Beside the gap stands what the linear program and rounding alone
leave, and how many times their CPU seconds the plan takes, in the same process. `files`: profiles in Zeus's CSV, at
1F1B with 12 microbatches. Writes benchmarks/results/gaps.json and exits with 1 if a gap of the first kind, or
of a profile in a file, is over 1%.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from joulepath_planner import Pipeline, Plan, Point, Profile, one_f_one_b, plan, schedule_by_name
from joulepath_planner import draft as planner

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/gaps.json"
PUBLISHED = ROOT / "examples/data/gpt3-175b_a100-sxm_stage-profile.csv"

BAR: Final = 0.01
SLOWDOWNS: Final = (0.0, 0.02, 0.05, 0.1)
THROTTLED: Final = 80
FEW: Final = 12
FILE_BLOCKING_POWER_W: Final = 70.0


def throttled(seed: int) -> Pipeline:
    """Forwards are fastest one or two clocks below the top one."""
    draw = random.Random(seed)
    name = ("1f1b", "1f1b", "interleaved-1f1b", "zbv")[seed % 4]
    chunks = 1 if name == "1f1b" else 2
    stages = draw.choice((2, 3, 4, 6, 8) if chunks == 1 else (4, 6, 8))
    microbatches, ranks = draw.choice((4, 8, 12, 16, 24)), stages // chunks
    if name == "interleaved-1f1b":
        microbatches = ranks * max(1, microbatches // ranks)
    if name == "zbv":
        microbatches = max(microbatches, 2 * ranks)
    return _drawn(draw, name, stages, microbatches, draw.choice((4, 5, 7, 10, 16)), below=(1, 2))


def few_clocks(seed: int) -> Pipeline:
    """Three clocks, the top one the fastest."""
    draw = random.Random(seed)
    return _drawn(draw, "1f1b", draw.choice((2, 3, 4, 6, 8)), draw.choice((4, 8, 12, 16, 24)), 3, below=(0,))


def _drawn(
    draw: random.Random, name: str, stages: int, microbatches: int, count: int, below: Sequence[int]
) -> Pipeline:
    top, lowest = draw.choice((1410, 1755, 1980)), draw.uniform(0.45, 0.7)
    clocks = [round(top * (1 - (1 - lowest) * index / (count - 1))) for index in range(count)]
    noise = draw.choice((0.0, 0.005, 0.02))
    points = {}
    for stage in range(stages):
        size = draw.uniform(0.7, 1.3)
        back = 0.045 * size * draw.uniform(0.8, 1.2)
        parts = {"I": 0.5 * back, "W": 0.5 * back} if name == "zbv" else {}
        for kind, seconds in {"F": 0.02 * size, "B": back, **parts}.items():
            memory, static, power = draw.uniform(0.05, 0.7), draw.uniform(0.25, 0.5), draw.uniform(1.5, 3.0)
            best = draw.choice(below) if kind == "F" else 0
            series = []
            for index, clock in enumerate(clocks):
                lasts = seconds * (memory + (1 - memory) * top / clock) * (1 + draw.uniform(-noise, noise))
                if index < best:
                    lasts *= 1 + (1 - memory) * (top / clocks[best] - 1) + draw.uniform(0.002, 0.03) * (best - index)
                watts = 350 * (static + (1 - static) * (clock / top) ** power) * (1 + draw.uniform(-noise, noise))
                series.append(Point(clock, lasts, lasts * watts))
            points[stage, kind] = tuple(series)
    return Pipeline(schedule_by_name(name, stages, microbatches), Profile(points, draw.choice((20.0, 90.0))))


def from_file(path: Path) -> Pipeline:
    profile = Profile.from_csv(path, blocking_power_w=FILE_BLOCKING_POWER_W)
    return Pipeline(one_f_one_b(len(profile.stages), 12), profile)


def measured(name: str, pipeline: Pipeline) -> Iterator[dict[str, Any]]:
    for slowdown in SLOWDOWNS:
        alone_s, alone = _timed(pipeline, slowdown, alone=True)
        seconds, made = _timed(pipeline, slowdown)
        yield {
            "profile": name,
            "slowdown": slowdown,
            "instructions": sum(map(len, pipeline.schedule.orders)),
            "gap": made.optimality_gap,
            "gap_linear_program": alone.optimality_gap,
            "energy_less": 1 - made.energy_j / alone.energy_j,
            "bound_more": made.lower_bound_j / alone.lower_bound_j - 1,
            "times_cpu_s": seconds / alone_s,
        }


def _timed(pipeline: Pipeline, slowdown: float, *, alone: bool = False) -> tuple[float, Plan]:
    """CPU seconds, and the plan; alone: with no search for whole clocks."""
    begin = time.process_time()
    with patch.object(planner, "_MOST_WINDOWED", 0 if alone else planner._MOST_WINDOWED):
        made = plan(pipeline, slowdown=slowdown, granularity="instruction")
    return time.process_time() - begin, made


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    worst = max(rows, key=lambda row: row["gap"])
    searched = [row["times_cpu_s"] for row in rows if row["energy_less"] or row["bound_more"]]
    before = [row["gap_linear_program"] for row in rows]
    return {
        "plans": len(rows),
        "worst": worst["gap"],
        "worst_at": f"{worst['profile']} at {1 + worst['slowdown']:g} T_min",
        "median": statistics.median(row["gap"] for row in rows),
        "worst_linear_program": max(before),
        "median_linear_program": statistics.median(before),
        "over_bar": sum(row["gap"] > BAR for row in rows),
        "over_bar_linear_program": sum(gap > BAR for gap in before),
        "searched": len(searched),
        "times_cpu_s_median": statistics.median(searched) if searched else None,
        "times_cpu_s_most": max(searched, default=None),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="How far plans are above their bound where hulls are coarse.")
    parser.add_argument("--profiles", nargs="*", type=Path, default=[PUBLISHED], help="in Zeus's CSV")
    options = parser.parse_args()
    plan(throttled(0), slowdown=0.1)  # what is imported late
    kinds = {
        "throttled": [(f"throttled {seed}", throttled(seed)) for seed in range(THROTTLED)],
        "few_clocks": [(f"few clocks {seed}", few_clocks(seed)) for seed in range(FEW)],
        "files": [(path.stem, from_file(path)) for path in options.profiles],
    }
    result: dict[str, Any] = {"bar": BAR}
    for kind, pipelines in kinds.items():
        rows: list[dict[str, Any]] = []
        for name, pipeline in pipelines:
            print(f"{name} ...", file=sys.stderr, flush=True)
            rows += measured(name, pipeline)
        widest = sorted(rows, key=lambda row: -row["gap_linear_program"])[:12]
        result[kind] = {**summary(rows), "widest": widest}
        found = result[kind]
        print(
            f"{kind}: {found['plans']} plans, worst {found['worst']:.3%} ({found['worst_at']}), median "
            f"{found['median']:.3%}; linear program and rounding alone {found['worst_linear_program']:.3%} and "
            f"{found['median_linear_program']:.3%}; CPU seconds where searched, median "
            f"{found['times_cpu_s_median'] or 1:.1f} times, most {found['times_cpu_s_most'] or 1:.1f} times"
        )
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written: {RESULTS.relative_to(ROOT)}")
    return int(max(result["throttled"]["worst"], result["files"]["worst"]) > BAR)


if __name__ == "__main__":
    sys.exit(main())
