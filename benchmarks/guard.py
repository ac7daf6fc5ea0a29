"""What the guards find and what they refuse wrongly, in 10,000 simulated jobs; writes benchmarks/results/guard.json.

    .venv/bin/python benchmarks/guard.py [--share 0.1]

Each job is one rank, closed loop, through the agent's real conductor and guards (`tests/agent/ranks/simulated.py`).
Noise of iterations is AR(1): each has 0.8 of the deviation of the one before. First, plans that cost nothing, in jobs
that are quiet, that drift, that have a neighbour's bursts, or both: every refusal is a false alarm. Pairs are dense
here, so that a job has as many as in days of sparse ones; a day is one of iterations of 3 s, with 48 sparse pairs. Then
plans that are slower than allowed, with pairs as an operator asks for them: dense ones until the slowdown is known to
half a percent, then one in fifty; of the iterations between those, only the last ten are played. Beside both guards
stands the fast one alone, in whole jobs of 10,000 iterations. Simulated, no GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.clocks.ranks.simulated import Noise, Slowness, bursts, drift, plan, simulate, slow_plan  # noqa: E402

MEMORY: Final = 0.8
DEVIATIONS: Final = {"0.2%": 0.002, "1%": 0.01}
ENOUGH: Final = {0.002: 8, 0.01: 24}
"""Whole pairs after which the slowdown is known to half a percent."""
MOST_DENSE: Final = 32
SLOWDOWNS: Final = (0.005, 0.01, 0.02, 0.03, 0.049, 0.06)
BLOCK: Final = 6
EVERY: Final = 50
ITERATIONS_A_DAY: Final = 28_800
"""Of 3 s."""
PAIRS_A_DAY: Final = ITERATIONS_A_DAY / (2 * BLOCK * EVERY)
SOUND_JOBS: Final = 900
SOUND_ITERATIONS: Final = 480
SLOW_JOBS: Final = 250
SLOW_ITERATIONS: Final = 40_000
FAST_ALONE_JOBS: Final = 20
FAST_ALONE_ITERATIONS: Final = 10_000


def gusts(seed: int) -> Slowness:
    """Of a neighbour: 30% for ten iterations, every 300."""
    return bursts(seed, gap=300, length=10)


def drift_and_gusts(seed: int) -> Slowness:
    one, other = drift(), gusts(seed)
    return lambda number, arm: one(number, arm) * other(number, arm)


JOBS: Final[dict[str, Callable[[int], Slowness]]] = {
    "quiet": lambda seed: slow_plan(0.0),
    "drift": lambda seed: drift(),
    "bursts": gusts,
    "drift and bursts": drift_and_gusts,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one job."""

    refused_at: int | None
    by: str
    """The guard's word for it; empty where it wasn't refused."""
    iterations: int


def sound(kind: str, deviation: float, seed: int) -> Outcome:
    """A plan that costs no time."""
    slowness, spec = JOBS[kind](seed), plan(1000, length=BLOCK)
    return _outcome(spec, SOUND_ITERATIONS, slowness, seed, deviation)


def slow(slowdown: float, deviation: float, seed: int, fast_alone: bool = False) -> Outcome:
    """A plan that costs more than is allowed, which is nothing."""
    spec = plan(0 if fast_alone else MOST_DENSE, length=BLOCK, every=None if fast_alone else EVERY)
    looked_at = FAST_ALONE_ITERATIONS if fast_alone else SLOW_ITERATIONS
    return _outcome(spec, looked_at, slow_plan(slowdown), seed, deviation, None if fast_alone else ENOUGH[deviation])


def _outcome(
    spec: Any, iterations: int, slowness: Slowness, seed: int, deviation: float, enough: int | None = None
) -> Outcome:
    story = simulate(spec, iterations, slowness, seed, Noise(deviation, MEMORY), enough=enough, jump=enough is not None)
    return Outcome(story.refused_at, story.why.partition(":")[0], len(story.arms))


@dataclass(frozen=True, slots=True)
class Alarms:
    """False ones, of all jobs of a kind."""

    noise: str
    job: str
    jobs: int
    pairs: int
    slow_guard: int
    fast_guard: int
    slow_guard_a_day: float
    fast_guard_a_day: float


@dataclass(frozen=True, slots=True)
class Found:
    """How many slow plans, and after how many iterations."""

    noise: str
    beyond_allowed: float
    guards: str
    jobs: int
    iterations_looked_at: int
    share: float
    median_iterations: float | None
    p95_iterations: float | None


def alarms(noise: str, kind: str, outcomes: list[Outcome]) -> Alarms:
    iterations = sum(one.iterations for one in outcomes)
    pairs = iterations // (2 * BLOCK)
    by = [one.by for one in outcomes]
    slow_ones, fast_ones = by.count("SlowPlan"), by.count("GuardTripped")
    return Alarms(
        noise, kind, len(outcomes), pairs, slow_ones, fast_ones,
        slow_ones / pairs * PAIRS_A_DAY, fast_ones / iterations * ITERATIONS_A_DAY,
    )  # fmt: skip


def found(noise: str, slowdown: float, guards: str, outcomes: list[Outcome]) -> Found:
    """Of the jobs in which it wasn't found, the figures know that it took longer."""
    looked_at = FAST_ALONE_ITERATIONS if guards == "fast alone" else SLOW_ITERATIONS
    after = sorted(looked_at + 1 if one.refused_at is None else one.refused_at for one in outcomes)
    known = [at if at <= looked_at else None for at in (statistics.median(after), after[int(0.95 * len(after))])]
    share = sum(one.refused_at is not None for one in outcomes) / len(outcomes)
    return Found(noise, slowdown, guards, len(outcomes), looked_at, share, known[0], known[1])


def main() -> None:
    """Prints a line for each case, and writes all."""
    parser = argparse.ArgumentParser(description="What the guards find and what they refuse wrongly.")
    parser.add_argument("--share", type=float, default=1.0, help="of the jobs")
    share = parser.parse_args().share
    seeds = {jobs: range(max(2, int(jobs * share))) for jobs in (SOUND_JOBS, SLOW_JOBS, FAST_ALONE_JOBS)}
    result: dict[str, Any] = {"simulated": True, "block_iterations": BLOCK, "every": EVERY}
    result |= {"ar1": MEMORY, "false_alarms": [], "found": []}
    with Pool() as pool:
        for noise, deviation in DEVIATIONS.items():
            for kind in JOBS:
                counted = alarms(noise, kind, pool.map(partial(sound, kind, deviation), seeds[SOUND_JOBS]))
                result["false_alarms"].append(asdict(counted))
                print(counted, flush=True)
        for noise, deviation in DEVIATIONS.items():
            for slowdown in SLOWDOWNS:
                for guards, jobs, alone in (("both", SLOW_JOBS, False), ("fast alone", FAST_ALONE_JOBS, True)):
                    run = partial(slow, slowdown, deviation, fast_alone=alone)
                    one = found(noise, slowdown, guards, pool.map(run, seeds[jobs]))
                    result["found"].append(asdict(one))
                    print(one, flush=True)
    result["jobs"] = sum(one["jobs"] for one in result["false_alarms"] + result["found"])
    (ROOT / "benchmarks/results/guard.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
