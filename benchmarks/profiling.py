"""What profiling a running job costs, and how well the frontier is known then, beside a sweep of twelve clocks.

    python benchmarks/profiling.py [--profiles N] [--first SEED]

The truth is known: GPT-3's published profile (8 stages, 12 microbatches) and ten drawn ones of 4 or 8 stages, with
capped tops, plateaus (some with higher clocks a little slower) and steps at which a lower clock is sooner done. Jobs
are simulated (`lab/simulated_job.py`), the agent's own code measures them: noise of 1% in time and 2% in energy from
kernel to kernel, an energy counter that moves every 100 ms. The operator's own code makes profiles, chooses clocks and
says when enough is known.

- adaptive: rounds of a few clocks, those that tell most next, until the frontier is known to a percent.
- fixed: twelve clocks, whatever they tell, with a return to default clocks after every third.
- again: a second run of the job begins with the profile that `adaptive` has left: it is checked at two clocks, used or
  refreshed, and rounds follow only while the frontier isn't known.
- drifted: the same, and all work takes 3% longer and 6% more joules by then.
- other: the same, and below 0.8 of the default clock work takes up to 4% longer by then: the profile doesn't hold.

`iterations` are those of blocks; beside them stand those between two rounds, at default clocks, which cost the job
nothing. `lost_s` and `extra_j` are what the blocks took beyond as many iterations at default clocks; joules are saved
where clocks are lower. `error` is the worst error of the frontier's energy at nine points from T_min to T*_free, at the
same slowdown, among clocks down to the lowest that a sweep measures; `claimed` is what the profile says of it. `saved`
and `late` are by the truth, of the operator's plan for T_min.
Writes benchmarks/results/profiling.json, unless other profiles are drawn (--first), and exits with 1 if a bar is
missed.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from joulepath_bridge.pipeline import pipeline_of, profile_of
from joulepath_crds import Arm, EnergyProfileSpec, Origin, Profiling, Reuse, Sweep
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.request import Delays, SurveyResult
from joulepath_operator.figures.agreement import agreement, check_clocks, merged
from joulepath_operator.figures.clocks import (
    CLOCKS_A_ROUND,
    FIRST_CLOCKS,
    KNOWN,
    choose_clocks,
    make_sweep,
    next_sweep,
    swept,
)
from joulepath_operator.figures.order import executed
from joulepath_operator.figures.profile import build_profile
from joulepath_operator.figures.timing.delays import measure_delays
from joulepath_operator.planning.child import learnt
from joulepath_operator.planning.surveying import look
from joulepath_operator.story.sweeping import survey_request
from joulepath_planner import (
    Frontier,
    Pipeline,
    Plan,
    Point,
    Profile,
    fit,
    frontier,
    one_f_one_b,
    plan,
    simulate,
    sure_plan,
)
from joulepath_rules import Applied
from simulated_job import SimulatedJob, Spent
from virtual_gpus.model import replay

ROOT = Path(__file__).resolve().parents[1]
GPT3: Final = ROOT / "examples/data/gpt3-175b_a100-sxm_stage-profile.csv"
LOWEST_PUBLISHED_MHZ: Final = 855

DRAWN: Final = 10
GPUS: Final = ((1410, 15), (1980, 30), (1740, 30))
STEPS: Final = (0.008, 0.016)
"""In time from a clock to the next lower one, up or down; those of the published profile are 1.6% over its trend."""
TRANSFER_S: Final = 0.002
TAIL_S: Final = 0.03
ITERATIONS_PER_CLOCK: Final = 3
BETWEEN: Final = 5
"""Iterations from a round's last to the next one's first: until records are complete, and the plan delivered."""
BEFORE: Final = 6
BETWEEN_DEFAULTS: Final = 3
SEED: Final = 7
MARGIN: Final = 0.0025
RESERVE: Final = 0.001
"""As the operator plans."""
POINTS: Final = 9
FRONTIER_POINTS: Final = 65
MOST_ITERATIONS: Final = 60
WAYS: Final = ("adaptive", "fixed", "again", "drifted", "other")
SLOWED: Final = 0.8
SLOWED_BY: Final = 0.1
"""Of the way below that, as a share of the default clock."""
BARS: Final = {"worst_error": 0.01, "most_iterations": float(MOST_ITERATIONS), "worst_error_of_reuse": 0.01}


def gpt3() -> Pipeline:
    model = replay(GPT3)
    clocks = model.clocks.all_mhz
    points = {
        (int(kernel.name[:-2]), kernel.name[-1]): tuple(
            Point(clock, seconds, seconds * watts)
            for clock, seconds, watts in zip(clocks, kernel.time_s, kernel.power_w, strict=True)
            if clock >= LOWEST_PUBLISHED_MHZ
        )
        for kernel in model.kernels
        if kernel.name[-1] in "FB"
    }
    return piped(points, dict(zip(clocks, model.blocking_w, strict=True)), 12)


def drawn(seed: int) -> Pipeline:
    draw = np.random.default_rng(seed)
    stages, microbatches = (4, 8)[seed % 2], int(draw.integers(6, 13))
    top, step = GPUS[draw.integers(len(GPUS))]
    clocks = np.arange(top, 0.5 * top, -step)
    capped, slower = seed % 3 > 0, draw.uniform(0, 0.3) * (seed % 3 == 2)
    places = draw.choice(np.arange(4, len(clocks) - 4), 2, replace=False)
    steps = [(clocks[place], draw.choice((-1, 1)) * draw.uniform(*STEPS)) for place in places]
    bumps = np.prod([np.where(clocks < at, 1 + by, 1.0) for at, by in steps], axis=0) * draw.normal(
        1, 0.002, len(clocks)
    )
    points: dict[tuple[int, str], tuple[Point, ...]] = {}
    sizes = draw.uniform(0.85, 1.15, stages)
    for kind, base in (("F", 0.05), ("B", 0.1)):
        memory, static, exponent = draw.uniform(0.1, 0.45), draw.uniform(0.2, 0.5), draw.uniform(1.8, 3)
        watts, cap = draw.uniform(320, 480), capped * draw.uniform(0.01, 0.08) * top
        for stage in range(stages):
            share = memory + draw.normal(0, 0.02)
            limit = top - cap * draw.uniform(0.8, 1.2)
            effective = np.minimum(clocks, limit) / top
            throttled = 1 + slower * np.maximum(0, clocks / limit - 1)
            times = base * sizes[stage] * (share + (1 - share) / effective) * throttled * bumps
            joules = times * watts * (static + (1 - static) * effective**exponent)
            points[stage, kind] = tuple(
                Point(int(clock), float(time_s), float(energy_j))
                for clock, time_s, energy_j in zip(clocks, times, joules, strict=True)
            )
    waiting = draw.uniform(60, 95)
    return piped(points, {int(clock): waiting * (0.7 + 0.3 * clock / top) for clock in clocks}, microbatches)


def piped(points: dict[tuple[int, str], tuple[Point, ...]], waits_w: dict[int, float], microbatches: int) -> Pipeline:
    stages = len({stage for stage, _ in points})
    links = [(stage, stage + 1, "F") for stage in range(stages - 1)]
    links += [(stage + 1, stage, "B") for stage in range(stages - 1)]
    return Pipeline(
        one_f_one_b(stages, microbatches),
        Profile(points, waits_w),
        transfer_s=dict.fromkeys(links, TRANSFER_S),
        tail_s=dict.fromkeys(range(stages), TAIL_S),
    )


def changed(truth: Pipeline, time: Callable[[float], float], energy: float = 1.0) -> Pipeline:
    """The same with seconds by a factor for each clock, as a share of the default one, and joules by one for all."""
    top = truth.profile.default_clock_mhz(0)
    points = {
        key: tuple(
            replace(one, time_s=one.time_s * time(one.clock_mhz / top), energy_j=one.energy_j * energy) for one in ones
        )
        for key, ones in truth.profile.points.items()
    }
    return replace(truth, profile=Profile(points, truth.profile.blocking_power_w))


def drifted(truth: Pipeline) -> Pipeline:
    return changed(truth, lambda share: 1.03, 1.06)


def other(truth: Pipeline) -> Pipeline:
    return changed(truth, lambda share: 1 + SLOWED_BY * 2 * max(0.0, SLOWED - share))


def reachable(truth: Pipeline) -> Pipeline:
    """The same with the clocks that a sweep may measure."""
    top = truth.profile.default_clock_mhz(0)
    lowest = choose_clocks([one.clock_mhz for one in truth.profile.points[0, "F"]], top, 3)[-1]
    points = {key: tuple(one for one in ones if one.clock_mhz >= lowest) for key, ones in truth.profile.points.items()}
    waits = truth.profile.blocking_power_w
    assert isinstance(waits, dict)
    return replace(truth, profile=Profile(points, {clock: w for clock, w in waits.items() if clock >= lowest}))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What profiling took, and how far off the frontier is then, at most. claimed: what it says itself of that. saved,
    late: by the truth, of the operator's plan for T_min. reuse: what became of a profile that was there."""

    clocks: int
    iterations: int
    between: int
    seconds: float
    lost_s: float
    energy_j: float
    extra_j: float
    error: float
    claimed: float | None
    saved: float
    late: float
    reuse: str = ""


class Trial:
    """One job that is profiled, by rounds."""

    def __init__(self, truth: Pipeline, seed: int) -> None:
        self.truth, self.job = truth, SimulatedJob(truth, seed=seed)
        self.default_mhz = truth.profile.default_clock_mhz(0)
        self.supported = tuple(one.clock_mhz for one in truth.profile.points[0, "F"])
        self.lowest_mhz = choose_clocks(self.supported, self.default_mhz, 3)[-1]
        self.profile: EnergyProfileSpec | None = None
        self.usual = self._spend(BEFORE, Applied(Arm.DEFAULT))
        self.spent, self.blocks, self.between = Spent(), 0, 0

    def _spend(self, iterations: int, applied: Applied) -> Spent:
        return self.job.run(iterations, lambda replica: applied)

    def sweep(self, sweep: Sweep) -> None:
        length = sweep.iterations_per_block
        for place, clock in enumerate(sweep.clocks_mhz):
            took = self._spend(length, Applied(Arm.SWEEP, place, str(self.blocks), clock, length))
            self.spent = Spent(self.spent.time_s + took.time_s, self.spent.energy_j + took.energy_j)
        self.blocks += len(sweep.clocks_mhz)
        self._spend(BETWEEN, Applied(Arm.DEFAULT))
        self.between += BETWEEN

    def measured(self, sweep: Sweep) -> tuple[Gang, EnergyProfileSpec, Delays]:
        gang = self.job.gang()
        topology = gang.topology()
        delays = measure_delays(gang, topology)
        return gang, build_profile(gang, topology, set(swept(sweep)), delays, "job"), delays

    def survey(self, sweep: Sweep, spec: EnergyProfileSpec, count: int) -> SurveyResult:
        gang = self.job.gang()
        return look(learnt(survey_request("trial", gang, gang.topology(), spec, sweep, count)))

    def outcome(
        self, sweep: Sweep, claimed: float | None, old: EnergyProfileSpec | None = None, reuse: str = ""
    ) -> Outcome:
        gang, spec, delays = self.measured(sweep)
        if old is not None:
            spec = merged(old, spec, agreement(old, spec), self.lowest_mhz)
        self.profile = spec
        iterations = self.blocks * sweep.iterations_per_block
        usual = Spent(*(each / BEFORE * iterations for each in (self.usual.time_s, self.usual.energy_j)))
        fitted = fit(profile_of(spec, delays.fixed_s), gang.supported_clocks_mhz())
        found = pipeline_of(
            spec,
            [[one.label for one in executed(rank)] for rank in gang.pipeline()],
            profile=fitted.likely,
            transfers_s=delays.transfers_s,
            overheads_s=delays.overheads_s,
            tails_s=delays.tails_s,
            gaps_s=delays.gaps_s,
            extras_s=delays.extras_s,
        )

        def made(on: Pipeline, reserve: float) -> Plan:
            return plan(on, granularity="instruction", reserve=reserve)

        clocks = sure_plan(found, fitted, made, margin=MARGIN, reserve=RESERVE).plan.clocks
        default, planned = simulate(self.truth), simulate(self.truth, clocks)
        return Outcome(
            clocks=len(set(swept(sweep))),
            iterations=iterations,
            between=self.between,
            seconds=self.spent.time_s,
            lost_s=self.spent.time_s - usual.time_s,
            energy_j=self.spent.energy_j,
            extra_j=self.spent.energy_j - usual.energy_j,
            error=self.error(found),
            claimed=claimed,
            saved=1 - planned.energy_j / default.energy_j,
            late=planned.iteration_time_s / default.iteration_time_s - 1,
            reuse=reuse,
        )

    def error(self, found: Pipeline) -> float:
        true, seen = (frontier(one, FRONTIER_POINTS) for one in (reachable(self.truth), found))
        slowdowns = np.linspace(1, true.t_star_free_s / true.t_min_s, POINTS)
        return max(abs(at(seen, one) / at(true, one) - 1) for one in slowdowns)


def at(known: Frontier, slowdown: float) -> float:
    return known.at(float(slowdown) * known.t_min_s).energy_j


def adaptive(truth: Pipeline, seed: int) -> tuple[Outcome, EnergyProfileSpec]:
    """And the profile that it leaves."""
    trial = Trial(truth, seed)
    sweep = make_sweep(first_clocks(trial), ITERATIONS_PER_CLOCK, str(seed))
    outcome = go_on(trial, sweep, None)
    assert trial.profile is not None
    return outcome, trial.profile.model_copy(update={"frontier_uncertainty": outcome.claimed})


def reused(truth: Pipeline, old: EnergyProfileSpec, seed: int) -> Outcome:
    """A run that finds a profile."""
    trial = Trial(truth, seed)
    high, low = check_clocks(old, trial.supported, trial.lowest_mhz)
    sweep = Sweep(
        clocks_mhz=(0, high, low, 0),
        iterations_per_block=ITERATIONS_PER_CLOCK + 1,
        origin=Origin(profile="old", reuse=Reuse.CHECKED),
    )
    return go_on(trial, sweep, old)


def first_clocks(trial: Trial) -> tuple[int, ...]:
    return choose_clocks(trial.supported, trial.default_mhz, FIRST_CLOCKS)


def go_on(trial: Trial, sweep: Sweep, old: EnergyProfileSpec | None) -> Outcome:
    """Round after round, as the operator's story has it."""
    reuse = ""
    while True:
        trial.sweep(sweep)
        _, spec, _ = trial.measured(sweep)
        if old is not None:
            found = agreement(old, spec)
            reuse = found.reuse.value
            if found.reuse is Reuse.REFUSED:
                old = None
                lower = [clock for clock in first_clocks(trial)[1:] if clock not in swept(sweep)]
                blocks = make_sweep((trial.default_mhz, *lower), ITERATIONS_PER_CLOCK, "again").clocks_mhz
                sweep = next_sweep(sweep, blocks, 0.0).model_copy(update={"origin": None})
                continue
            spec = merged(old, spec, found, trial.lowest_mhz)
            if spec.frontier_uncertainty is not None:
                return trial.outcome(sweep, spec.frontier_uncertainty, old, reuse)
        left = min(CLOCKS_A_ROUND, Profiling().clocks - len(set(swept(sweep))))
        known = trial.survey(sweep, spec, max(left, 0))
        if known.uncertainty <= KNOWN or left <= 0:
            return trial.outcome(sweep, known.uncertainty, old, reuse)
        sweep = next_sweep(sweep, known.tells_most_mhz, 0.0)


def fixed(truth: Pipeline, seed: int) -> Outcome:
    trial = Trial(truth, seed)
    clocks = choose_clocks(trial.supported, trial.default_mhz, Profiling().clocks)
    lower = list(clocks[1:])
    random.Random(seed).shuffle(lower)
    blocks = [0]
    for start in range(0, len(lower), BETWEEN_DEFAULTS):
        blocks += [*lower[start : start + BETWEEN_DEFAULTS], 0]
    sweep = Sweep(clocks_mhz=tuple(blocks), iterations_per_block=ITERATIONS_PER_CLOCK + 1)
    trial.sweep(sweep)
    return trial.outcome(sweep, None)


def main() -> int:
    parser = argparse.ArgumentParser(description="What profiling costs, and how well the frontier is known then.")
    parser.add_argument("--profiles", type=int, default=DRAWN, help="how many are drawn")
    parser.add_argument("--first", type=int, default=0, help="seed of the first one")
    options = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    heads = (("", 22), ("clocks", 8), ("iterations", 12), ("between", 9), ("s", 8), ("lost s", 8), ("extra J", 9))
    print(
        "".join(f"{head:>{width}}" for head, width in (*heads, ("error", 8), ("claimed", 9), ("saved", 7), ("late", 7)))
    )
    for seed in [None, *range(options.first, options.first + options.profiles)]:
        truth, name = (gpt3(), "GPT-3, published") if seed is None else (drawn(seed), f"drawn {seed}")
        first, profile = adaptive(truth, SEED)
        found = {
            "adaptive": first,
            "fixed": fixed(truth, SEED),
            "again": reused(truth, profile, SEED + 1),
            "drifted": reused(drifted(truth), profile, SEED + 1),
            "other": reused(other(truth), profile, SEED + 1),
        }
        rows[name] = {way: asdict(one) for way, one in found.items()}
        for way, one in found.items():
            claimed = "" if one.claimed is None else f"{one.claimed:.2%}"
            print(
                f"{name if way == 'adaptive' else '':<17}{way[:5]:<5}"
                f"{one.clocks:>8}{one.iterations:>12}{one.between:>9}"
                f"{one.seconds:>8.0f}{one.lost_s:>8.1f}{one.extra_j:>9.0f}{one.error:>8.2%}{claimed:>9}"
                f"{one.saved:>7.1%}{one.late:>7.2%} {one.reuse}",
                flush=True,
            )
    ours = [one["adaptive"] for one in rows.values()]
    bars = {
        "worst_error": max(one["error"] for one in ours),
        "most_iterations": max(one["iterations"] for one in ours),
        "worst_error_of_reuse": max(one[way]["error"] for one in rows.values() for way in ("again", "drifted")),
    }
    means = {
        way: {
            name: statistics.fmean(one[way][name] for one in rows.values())
            for name in ("clocks", "iterations", "seconds", "lost_s", "extra_j", "error", "saved", "late")
        }
        for way in WAYS
    }
    missed = [name for name, most in BARS.items() if bars[name] > most]
    for name, most in BARS.items():
        print(f"{name}: {bars[name]:.4g}, at most {most:g}{' MISSED' if name in missed else ''}")
    if not options.first:
        path = ROOT / "benchmarks/results/profiling.json"
        document = {"bars": bars, "means": means, "profiles": rows}
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        print(f"written: {path.relative_to(ROOT)}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
