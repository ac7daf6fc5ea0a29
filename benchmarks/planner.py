"""Speed, memory and quality of the planner, beside Perseus's own optimizer (`lowtime` 0.3.0 from PyPI) in the same run.

    python benchmarks/planner.py [--data DIR] [--cases NAME ...] [--lowtime-python PYTHON | --no-lowtime]

Each case runs in a process of its own, so that its peak memory is its own. `gpt3-a100-8x12` and `gpt3-a100-8x96` are
the published profile in DIR, `generated-8x12` another one: a frontier of 33 points with the plan of each; the others
are one plan at T_min on a generated profile. lowtime is no dependency of Joulepath: unless --lowtime-python names an
interpreter that has it, it is installed into a virtual environment in the cache directory (--cache). It gets --patience
seconds for a case; null where that isn't enough. Both run in turn, and how many times ours its seconds are
(`times_ours`) is the median of that, in CPU seconds, which a busy machine doesn't stretch. It counts time in whole
units, a millisecond as published, and rounds durations down to them; since that makes its plans late and dear, it also
runs with a tenth, and beside its seconds stands how far its plans are above our bound at the time that they really
take. The headline is the published unit's. Cases and units that aren't run keep their figures in the file.

Besides: the gap to the lower bound over published and generated profiles, and our energy at the iteration times of the
published Perseus frontier (as published, and as lowtime's clocks really take: see the README beside the data).
Writes benchmarks/results/planner.json and exits with 1 if our energy is above Perseus's at any time that exact
durations give. (At its times as published, rounded down by up to 0.6%, it can't but be above in places.)
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from joulepath_planner import Pipeline, Point, Profile, frontier, frontier_plans, one_f_one_b, plan, simulate

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/planner.json"

CASES = ("gpt3-a100-8x12", "generated-8x12", "gpt3-a100-8x96", "16x128", "32x256", "64x512")
SLOWDOWNS = (0.0, 0.05, 0.1, 0.2)
PROFILE = "gpt3-175b_a100-sxm_stage-profile.csv"
BLOCKING_POWER_W = 83.64  # of that profile; see the README beside it
LOWTIME = "lowtime==0.3.0"
UNITS_S = (1e-3, 1e-4)
SAMPLES = 33


def published(data: Path, microbatches: int) -> Pipeline:
    return Pipeline(one_f_one_b(8, microbatches), Profile.from_csv(data / PROFILE, blocking_power_w=BLOCKING_POWER_W))


def generated(stages: int, microbatches: int, seed: int = 0) -> Pipeline:
    """Stages that differ by up to 15%, 38 clocks, time and power of each kind by a share of its own, noise of 0.2%."""
    draw = random.Random(seed)
    points = {}
    for stage in range(stages):
        size = draw.uniform(0.85, 1.15)
        for kind, seconds in (("F", 0.05 * size), ("B", 0.1 * size)):
            memory, static = draw.uniform(0.1, 0.4), draw.uniform(0.35, 0.45)
            points[stage, kind] = tuple(
                Point(
                    clock,
                    (lasts := seconds * (memory + (1 - memory) * 1410 / clock) * draw.uniform(0.998, 1.002)),
                    lasts * 400 * (static + (1 - static) * (clock / 1410) ** 2.6) * draw.uniform(0.998, 1.002),
                )
                for clock in range(1410, 840, -15)
            )
    return Pipeline(one_f_one_b(stages, microbatches), Profile(points, BLOCKING_POWER_W))


def compared(name: str, data: Path) -> Pipeline:
    """The pipeline of a case that lowtime gets too."""
    stages, microbatches = (int(part) for part in name.rsplit("-", 1)[-1].split("x"))
    return published(data, microbatches) if name.startswith("gpt3") else generated(stages, microbatches)


def profile_csv(name: str, data: Path, cache: Path) -> Path:
    """The profile of such a case in a file, for lowtime."""
    if name.startswith("gpt3"):
        return data / PROFILE
    path, words = cache / f"{name}.csv", {"F": "forward", "B": "backward"}
    rows = [
        f"{stage},{words[kind]},{point.clock_mhz},{point.time_s!r},{point.energy_j!r}"
        for (stage, kind), points in compared(name, data).profile.points.items()
        for point in points
    ]
    path.write_text("\n".join(["stage,instruction,frequency,time,energy", *rows]) + "\n", encoding="utf-8")
    return path


def timed(work: Callable[[], Any], times: int) -> tuple[float, Any]:
    """(the least wall-clock seconds of some runs, the last result)."""
    best = float("inf")
    for _ in range(times):
        begin = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - begin)
    return best, result


def cpu_seconds(work: Callable[[], Any]) -> float:
    """The median CPU seconds of some runs."""
    took = []
    for _ in range(5):
        begin = time.process_time()
        work()
        took.append(time.process_time() - begin)
    return statistics.median(took)


def run_case(name: str, data: Path) -> dict[str, Any]:
    stages, microbatches = (int(part) for part in name.rsplit("-", 1)[-1].split("x"))
    bounds: float | None = None
    cpu_s: float | None = None
    if "-" in name:
        pipeline = compared(name, data)
        seconds, (_, plans) = timed(lambda: frontier_plans(pipeline, SAMPLES), 5)
        cpu_s = cpu_seconds(lambda: frontier_plans(pipeline, SAMPLES))
        bounds, _ = timed(lambda: frontier(pipeline, SAMPLES), 5)
    else:
        pipeline = generated(stages, microbatches)
        seconds, found = timed(lambda: plan(pipeline), 1 if stages * microbatches > 10_000 else 3)
        plans = (found,)
    gaps = [one.optimality_gap for one in plans]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "case": name,
        "joulepath_s": round(seconds, 4),
        "joulepath_cpu_s": cpu_s and round(cpu_s, 4),
        "lowtime_s": None,
        "peak_mib": round(peak),
        "gap": max(gaps),
        "gap_median": statistics.median(gaps),
        "instructions": 2 * stages * microbatches,
        "bounds_only_s": bounds and round(bounds, 4),
    }


def run_gaps(data: Path) -> dict[str, Any]:
    pipelines = {f"gpt3-a100-8x{microbatches}": published(data, microbatches) for microbatches in (12, 24, 96)}
    for stages, microbatches in ((4, 8), (4, 32), (8, 16), (8, 48), (12, 24), (16, 32)):
        for seed in (1, 2):
            pipelines[f"{stages}x{microbatches} seed {seed}"] = generated(stages, microbatches, seed)
    gaps = {
        f"{name} at {1 + slowdown:g} T_min": plan(pipeline, slowdown=slowdown).optimality_gap
        for name, pipeline in pipelines.items()
        for slowdown in SLOWDOWNS
    }
    worst = max(gaps, key=lambda name: gaps[name])
    return {"n": len(gaps), "median": statistics.median(gaps.values()), "worst": gaps[worst], "worst_at": worst}


def run_quality(data: Path, name: str, lowtime: Path) -> dict[str, float]:
    """How far lowtime's plans are above the bound at the times that they take, replayed with exact durations."""
    pipeline = compared(name, data)
    exact = frontier(pipeline, None)
    replays = [simulate(pipeline, clocks) for _, clocks in spread(json.loads(lowtime.read_text("utf-8"))["points"])]
    gaps = [one.energy_j / exact.at(one.iteration_time_s).energy_j - 1 for one in replays]
    return {"gap": max(gaps), "gap_median": statistics.median(gaps)}


def run_against(data: Path, microbatches: int, lowtime: Path | None) -> dict[str, Any]:
    """Our energy over theirs, less 1, at Perseus's iteration times: the highest is what counts."""
    pipeline = published(data, microbatches)

    def above(points: Sequence[tuple[float, float]]) -> float:
        return max(plan(pipeline, deadline_s=at, fixed=True).energy_j / joules - 1 for at, joules in points)

    with open(data / f"gpt3-175b_a100-sxm_frontier_mb{microbatches}.csv", newline="", encoding="utf-8") as file:
        points = [(float(row["time"]), float(row["energy"])) for row in csv.DictReader(file)]
    t_min = simulate(pipeline).iteration_time_s
    # Their durations are rounded down to milliseconds: their least time is T_min, and the others are later by as much.
    late = t_min - min(at for at, _ in points)
    chosen = spread(points)
    found = {
        "microbatches": microbatches,
        "published_above": above([(at, joules) for at, joules in chosen if at >= t_min]),
        "published_unrounded_above": above([(at + late, joules) for at, joules in chosen]),
    }
    if lowtime is not None:
        replays = []
        for _, clocks in spread(json.loads(lowtime.read_text(encoding="utf-8"))["points"]):
            replay = simulate(pipeline, clocks)
            replays.append((replay.iteration_time_s, replay.energy_j))
        found["lowtime_above"] = above([point for point in replays if point[0] >= t_min])
    return found


def spread(points: Sequence[Any]) -> list[Any]:
    """So many of them, evenly, with both ends."""
    return [points[round(index * (len(points) - 1) / (SAMPLES - 1))] for index in range(SAMPLES)]


def child(*arguments: str) -> Any:
    command = [sys.executable, __file__, *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def lowtime_python(cache: Path) -> str:
    home = cache / "lowtime-0.3.0"
    python = home / "bin/python"
    if not python.exists():
        print(f"installing {LOWTIME} into {home}", file=sys.stderr, flush=True)
        if uv := shutil.which("uv"):
            subprocess.run([uv, "venv", "-q", "--python", sys.executable, home], check=True)
            subprocess.run([uv, "pip", "install", "-q", "--python", python, LOWTIME], check=True)
        else:
            subprocess.run([sys.executable, "-m", "venv", home], check=True)
            subprocess.run([python, "-m", "pip", "install", "-q", LOWTIME], check=True)
    return str(python)


def run_units(
    python: str,
    profile: Path,
    name: str,
    patience_s: float,
    points: dict[float, Path],
    repeats: int,
    data: Sequence[str],
) -> list[dict[str, Any]]:
    """lowtime's figures by unit of time, the published one first; no finer one where that isn't enough time already."""
    found: list[dict[str, Any]] = []
    for unit_s, path in points.items():
        path.unlink(missing_ok=True)
        if all(one["seconds"] for one in found):
            beside = run_beside(python, profile, name, unit_s, patience_s, path, repeats if not found else 1, data)
            quality = child(*data, "--child", "quality", name, str(path)) if beside["seconds"] else {}
            found.append({"unit_s": unit_s, **beside, **quality})
    return found


def run_beside(
    python: str,
    profile: Path,
    name: str,
    unit_s: float,
    patience_s: float,
    result: Path,
    repeats: int,
    data: Sequence[str],
) -> dict[str, float | None]:
    """lowtime's seconds, and how many times ours they are: both in turn, the median, since the machine may be busy."""
    took, times = [], []
    for _ in range(repeats):
        ours = child(*data, "--child", "case", name)["joulepath_cpu_s"]
        theirs = run_lowtime(python, profile, name.rsplit("x", 1)[-1], unit_s, patience_s, result)
        if theirs is None:
            return {"seconds": None}
        took.append(theirs[0])
        times.append(theirs[1] / ours)
    return {"seconds": statistics.median(took), "times_ours": statistics.median(times)}


def run_lowtime(
    python: str, profile: Path, microbatches: str, unit_s: float, patience_s: float, result: Path
) -> tuple[float, float] | None:
    """Seconds, and those of the CPU, of lowtime's frontier, which is then in `result`; None if that wasn't enough."""
    script = Path(__file__).with_name("lowtime_frontier.py")
    command = [python, str(script), str(profile), "8", microbatches, str(BLOCKING_POWER_W), str(unit_s)]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=patience_s)
    except subprocess.TimeoutExpired:
        return None
    result.write_text(done.stdout, encoding="utf-8")
    found = json.loads(done.stdout)
    return float(found["seconds"]), float(found["cpu_s"])


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def merged(known: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All cases: those that were run, each with lowtime's units that weren't run as known, and the others as known."""
    found = {row["case"]: row for row in known}
    for row in rows:
        before = found.get(row["case"], {}).get("lowtime", [])
        units = {one["unit_s"]: one for one in (*before, *row.get("lowtime", ()))}
        found[row["case"]] = {**row, **({"lowtime": list(units.values())} if units else {})}
    return [found[name] for name in CASES if name in found]


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'case':<34}{'seconds':>9}{'ratio':>8}{'peak':>10}{'worst gap':>11}{'median':>9}"]
    for row in rows:
        name, ours = row["case"], row["joulepath_s"]
        gaps = f"{row['gap']:>11.3%}{row['gap_median']:>9.3%}"
        lines.append(f"{name:<34}{ours:>9.3f}{'':>8}{row['peak_mib']:>6} MiB{gaps}")
        for one in row.get("lowtime", ()):
            theirs, label = one["seconds"], f"  lowtime, unit {one['unit_s'] * 1e3:g} ms"
            if theirs is None:
                lines.append(f"{label:<34}{'-':>9}")
                continue
            gaps = f"{one['gap']:>11.3%}{one['gap_median']:>9.3%}"
            lines.append(f"{label:<34}{theirs:>9.1f}{one['times_ours']:>7.0f}x{'':>10}{gaps}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Speed, memory and quality of the planner.")
    parser.add_argument("--data", type=Path, default=ROOT / "examples/data", help="folder of the published profile")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--lowtime-python", help="an interpreter that has lowtime")
    parser.add_argument("--no-lowtime", action="store_true", help="run without lowtime")
    parser.add_argument("--units", nargs="+", type=float, default=UNITS_S, metavar="S", help="lowtime's, in seconds")
    parser.add_argument("--repeats", type=int, default=3, help="how often both run in turn, at the first unit")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds that lowtime gets for a case")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(os.environ.get("JOULEPATH_CACHE") or Path.home() / ".cache/joulepath"),
        help="where lowtime is installed",
    )
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, *rest = options.child
        if what == "case":
            print(json.dumps(run_case(rest[0], options.data)))
        elif what == "gaps":
            print(json.dumps(run_gaps(options.data)))
        elif what == "quality":
            print(json.dumps(run_quality(options.data, rest[0], Path(rest[1]))))
        else:
            print(json.dumps(run_against(options.data, int(rest[0]), Path(rest[1]) if rest[1:] else None)))
        return 0

    data = ("--data", str(options.data))
    python = None if options.no_lowtime else options.lowtime_python or lowtime_python(options.cache)
    rows, against = [], []
    for name in options.cases:
        print(f"{name} ...", file=sys.stderr, flush=True)
        row = child(*data, "--child", "case", name)
        rows.append(row)
        if "-" in name:
            microbatches = name.rsplit("x", 1)[-1]
            profile = profile_csv(name, options.data, options.cache)
            points = {unit_s: options.cache / f"lowtime-{name}-{unit_s:g}.json" for unit_s in options.units}
            row["lowtime"] = (
                run_units(python, profile, name, options.patience, points, options.repeats, data) if python else []
            )
            row["lowtime_s"] = row["lowtime"][0]["seconds"] if python else None
            if (
                name.startswith("gpt3")
                and (options.data / f"gpt3-175b_a100-sxm_frontier_mb{microbatches}.csv").exists()
            ):
                first = next(iter(points.values()))
                against.append(child(*data, "--child", "against", microbatches, *([str(first)] * first.exists())))
    known = json.loads(RESULTS.read_text(encoding="utf-8"))
    gaps = known["gaps"]
    if set(options.cases) == set(CASES):
        print("gaps ...", file=sys.stderr, flush=True)
        gaps = child(*data, "--child", "gaps")
    result = {
        "cases": merged(known["cases"], rows),
        "gaps": gaps,
        "against_perseus": list({one["microbatches"]: one for one in (*known["against_perseus"], *against)}.values()),
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "python": platform.python_version()},
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table(rows))
    print(f"gap to the bound over {gaps['n']} plans: median {gaps['median']:.3%}, worst {gaps['worst']:.3%}")
    worst = float("-inf")
    for one in against:
        parts = {name.removesuffix("_above"): value for name, value in one.items() if name.endswith("_above")}
        worst = max(worst, *(value for name, value in parts.items() if name != "published"))
        listed = ", ".join(f"{name.replace('_', ' ')} {value:+.3%}" for name, value in parts.items())
        print(f"8x{one['microbatches']}, our energy against Perseus's where it is worst: {listed}")
    print(f"written: {RESULTS.relative_to(ROOT)}")
    return int(worst > 0)


if __name__ == "__main__":
    sys.exit(main())
