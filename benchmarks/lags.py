"""What lags by target bring to plans, beside two numbers for all targets, by lags that are known.

    python benchmarks/lags.py

GPT-3's published profile on eight GPUs whose clocks switch in 10 ms, and in 60 ms to some targets (+-20% from switch to
switch). Each GPU's lags are kept as its agent keeps them, pooled as the operator does, and planned with:

- sweep: one lowering to each of ten clocks and a raise to default clocks after it, as a job's sweep measures them;
- doctor: every switch among the doctor's four clocks and default ones, three times each, and the sweep.

`two numbers` is what an agent that knows no targets tells, and raises by. The plans' clocks are replayed with the true
lags and raises as early as agents order them: `saved` and `late` are of that. No GPU was measured. Writes
benchmarks/results/lags.json, and exits with 1 if a plan by rows is late, or saves less than one by two numbers by over
half a point.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import asdict
from itertools import permutations
from pathlib import Path
from typing import Any, Final

from joulepath_bridge.lags import lags_of
from joulepath_clocks.gpus.lags import Lags
from joulepath_clocks.gpus.wish import DEFAULT, height
from joulepath_crds import SwitchingLag
from joulepath_operator.facts.lags import pooled
from joulepath_planner import LagTable, Pipeline, Profile, one_f_one_b, plan, simulate

ROOT: Final = Path(__file__).resolve().parents[1]
PROFILE: Final = ROOT / "examples/data/gpt3-175b_a100-sxm_stage-profile.csv"
BLOCKING_W: Final = 83.64
TOP_MHZ: Final = 1410
SWEPT: Final = (1290, 1095, 855, 1350, 1245, 1185, 1140, 1035, 990, 930)
DOCTORS: Final = (705, 945, 1125, 1290)
QUICK_S: Final = 0.010
SLOW_S: Final = 0.060
SPREAD: Final = 0.2
SLOW: Final = ((900, 1100), (1200, 1395))
MICROBATCHES: Final = (12, 96)
GPUS: Final = 8
LOSS: Final = 0.005
"""Groups are as long as the slowest row asks for, not as what is pooled of all."""


def measured(slow: tuple[int, int], doctor: bool, seed: int) -> SwitchingLag:
    """What the agent of a GPU tells."""
    lags, chance = Lags(), random.Random(seed)
    switches = [(DEFAULT, clock) for clock in SWEPT] + [(clock, DEFAULT) for clock in SWEPT]
    if doctor:
        switches += [*permutations((*DOCTORS, DEFAULT), 2)] * 3
    for before, after in switches:
        lag_s = true_s(slow, after) * (1 + chance.uniform(-SPREAD, SPREAD))
        lags.add("up" if height(after) > height(before) else "down", after, lag_s)
    assert lags.summary is not None
    return SwitchingLag(**asdict(lags.summary))


def true_s(slow: tuple[int, int], target_mhz: int) -> float:
    """Of a switch."""
    return SLOW_S if slow[0] <= target_mhz <= slow[1] else QUICK_S


def truth(slow: tuple[int, int], told: LagTable, clocks_mhz: frozenset[int]) -> LagTable:
    """The true lags, with raises ordered as agents that told these do."""
    rows = {}
    for clock in clocks_mhz:
        lag_s = true_s(slow, clock)
        rows[clock] = LagTable(lag_s, lag_s, told.of(clock).p95_up_s, lag_s)
    return LagTable(QUICK_S, QUICK_S, QUICK_S, QUICK_S, rows)


def compare(microbatches: int, slow: tuple[int, int], doctor: bool, *, rows: bool) -> dict[str, Any]:
    """One plan, and what becomes of it."""
    pipeline = Pipeline(one_f_one_b(GPUS, microbatches), Profile.from_csv(PROFILE, blocking_power_w=BLOCKING_W))
    lag = pooled([measured(slow, doctor, seed) for seed in range(GPUS)])
    told = lags_of(lag if rows else lag.model_copy(update={"targets": None}), TOP_MHZ)
    made = plan(pipeline, lags=told)
    seen = simulate(pipeline, made.clocks, truth(slow, told, pipeline.profile.clocks_mhz))
    return {
        "microbatches": microbatches,
        "slow_mhz": slow,
        "measured_by": "doctor" if doctor else "sweep",
        "told": "rows" if rows else "two numbers",
        "granularity": made.granularity,
        "switches_a_rank": round(made.switches / GPUS, 1),
        "promised": round(made.predicted_savings, 4),
        "saved": round(1 - seen.energy_j / made.baseline_energy_j, 4),
        "late": round(seen.iteration_time_s / made.t_min_s - 1, 4),
    }


def main() -> int:
    """Prints and writes all; 1 if a bar is missed."""
    runs, missed = list[dict[str, Any]](), False
    for microbatches in MICROBATCHES:
        for slow in SLOW:
            for doctor in (False, True):
                two, by_rows = (compare(microbatches, slow, doctor, rows=rows) for rows in (False, True))
                runs += [two, by_rows]
                missed |= by_rows["late"] > 0 or by_rows["saved"] < two["saved"] - LOSS
    print(json.dumps(runs, indent=1))
    (ROOT / "benchmarks/results/lags.json").write_text(json.dumps({"virtual": True, "runs": runs}, indent=2) + "\n")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
