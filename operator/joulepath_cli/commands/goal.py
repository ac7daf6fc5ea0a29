"""What the user wants of a plan, and the plan that gives it."""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass

from joulepath_cli import quantities
from joulepath_cli.commands.scenario import Scenario
from joulepath_planner import (
    Alternative,
    Frontier,
    FrontierPoint,
    Noise,
    ObjectiveError,
    Plan,
    Robustness,
    RobustPlan,
    Simulation,
    alternatives,
    frontier,
    least_time_within_energy,
    least_time_within_power,
    plan,
    robust_plan,
    robustness,
    simulate,
)

__all__ = ["GRANULARITIES", "Made", "add_arguments", "make"]

GRANULARITIES = ("auto", "instruction", "phase", "kind", "rank")
_POINTS = 129
_KEEPS = 1 + 1e-9
_STEP = 2e-3
"""Of T_min: how closely the soonest plan within a budget is looked for."""
_BEYOND = 2.0
"""Of T*_fixed: clocks that are shared may cost least somewhat later."""
_NEAR = 1e-4
"""What a deadline that was copied from a table may be under T_min."""


@dataclass(frozen=True, slots=True)
class Made:
    """A plan and its replay.

    straggler_s: T' of the pipeline that it waits for; held_s: the time it is held at, for its power; alternatives,
    robust, jitter: where they were asked for.
    """

    plan: Plan
    replay: Simulation
    default: Simulation
    straggler_s: float | None = None
    held_s: float | None = None
    alternatives: tuple[Alternative, ...] = ()
    robust: RobustPlan | None = None
    jitter: Robustness | None = None

    @property
    def pace_s(self) -> float | None:
        """How long an iteration lasts at least, whatever the clocks."""
        return self.straggler_s or self.held_s


def add_arguments(parser: ArgumentParser) -> None:
    """The options that say what is wanted."""
    group = parser.add_argument_group("what is wanted (default: least energy at a slowdown of 0%)")
    one = group.add_mutually_exclusive_group()
    one.add_argument(
        "--slowdown",
        type=quantities.fraction,
        metavar="SHARE",
        help="least energy at an iteration time of at most T_min and so much more (5%%); T_min is that of everything "
        "at the profile's highest clock",
    )
    one.add_argument(
        "--deadline", type=quantities.seconds, metavar="TIME", help="least energy of an iteration by then (2.9s)"
    )
    one.add_argument(
        "--straggler",
        type=quantities.straggler,
        metavar="FACTOR|TIME",
        help="least energy while another pipeline takes so many times T_min (1.2), or so long (3.4s)",
    )
    one.add_argument(
        "--energy-budget", type=quantities.budget("J"), metavar="J", help="least time within these joules an iteration"
    )
    one.add_argument(
        "--power-budget",
        type=quantities.budget("W"),
        metavar="W",
        help="least time within these watts of all GPUs, averaged over an iteration",
    )
    group.add_argument(
        "--granularity", choices=GRANULARITIES, default="auto", help="what shares a clock (default: auto)"
    )
    group.add_argument(
        "--alternatives", action="store_true", help="show what each granularity would save, beside a bound of its own"
    )
    group.add_argument(
        "--reserve",
        type=quantities.fraction,
        default=0.0,
        metavar="SHARE",
        help="how much longer a slowed instruction may last without delaying the iteration (0.2%%)",
    )
    group.add_argument(
        "--host-power",
        type=quantities.budget("W"),
        metavar="W",
        help="watts of the host for each GPU: a plan that may take longer takes so long only as that saves more",
    )
    group.add_argument(
        "--min-dwell-ms",
        type=quantities.milliseconds,
        default=0.0,
        metavar="MS",
        help="least time between two switches of a GPU's clock",
    )
    group.add_argument(
        "--polish",
        type=quantities.seconds,
        default=0.0,
        metavar="TIME",
        help="how long to look for a better plan of instruction granularity (5s; default: not at all)",
    )
    noise = parser.add_argument_group("jitter")
    noise.add_argument(
        "--jitter",
        type=quantities.fraction,
        metavar="SHARE",
        help="replay the plan with instructions whose durations vary by so much (1%%, standard deviation); the "
        "profile's standard errors, if it has them, count too",
    )
    noise.add_argument(
        "--quantile",
        type=quantities.fraction,
        metavar="SHARE",
        help="make a plan that keeps its slowdown in this share of jittering iterations (95%%)",
    )
    noise.add_argument(
        "--margin",
        type=quantities.fraction,
        default=0.005,
        metavar="SHARE",
        help="how much slower than default clocks under the same jitter counts as no slower (default: 0.5%%)",
    )
    noise.add_argument("--samples", type=quantities.count, default=200, metavar="N", help="iterations to replay (200)")
    noise.add_argument(
        "--seed", type=quantities.whole, default=0, metavar="N", help="the same seed gives the same figures (0)"
    )


def make(scenario: Scenario, options: Namespace, progress: Callable[[], object] = lambda: None) -> Made:
    """Plan. Raises `PlanningError`, `ObjectiveError`, `ProfileError` or `ValueError`, all sentences."""
    straggler_s, held_s, robust = None, None, None
    if options.quantile is not None and (options.straggler or options.energy_budget or options.power_budget):
        raise ObjectiveError("--quantile keeps a slowdown or a deadline; leave out straggler and budgets.")
    if options.host_power is not None and (options.energy_budget or options.power_budget or options.alternatives):
        raise ObjectiveError("--host-power goes with a slowdown or a deadline; leave out budgets and --alternatives.")
    if options.quantile is not None and options.reserve:
        raise ObjectiveError("--quantile looks for the reserve itself; leave out --reserve.")
    deadline_s = _deadline_s(scenario, options)
    coarser = _alternatives(scenario, options, deadline_s) if options.alternatives else ()
    if options.straggler is not None:
        factor, straggler_s = options.straggler
        t_min_s = simulate(scenario.pipeline).iteration_time_s
        straggler_s = straggler_s or factor * t_min_s
        if straggler_s < t_min_s * (1 - _NEAR):
            raise ObjectiveError(
                f"the straggler takes {straggler_s:.4f} s, and this pipeline {t_min_s:.4f} s at default clocks: "
                "there is nothing to wait for. Leave --straggler out."
            )
        straggler_s = max(t_min_s, straggler_s)
        made = _by(scenario, options, straggler_s, fixed=True)
    elif options.energy_budget is not None:
        made, held_s = _within(
            scenario, options, options.energy_budget, "J", least_time_within_energy, lambda made: made.energy_j
        )
    elif options.power_budget is not None:
        made, held_s = _within(
            scenario,
            options,
            options.power_budget,
            "W",
            least_time_within_power,
            lambda made: made.energy_j / made.iteration_time_s,
        )
    elif options.quantile is not None:
        robust = robust_plan(
            scenario.pipeline,
            Noise(options.jitter or 0.0),
            lambda reserve: _by(scenario, options, deadline_s, reserve=reserve),
            quantile=options.quantile,
            margin=options.margin,
            lags=scenario.lags,
            samples=options.samples,
            seed=options.seed,
            progress=progress,
        )
        made = robust.plan
    else:
        made = _by(scenario, options, deadline_s)
    pace_s = straggler_s or held_s
    jitter = None if robust is None else robust.robustness
    if jitter is None and options.jitter is not None:
        noise = Noise(options.jitter)
        jitter = robustness(
            scenario.pipeline,
            made.clocks,
            noise,
            lags=scenario.lags,
            pace_s=pace_s,
            samples=options.samples,
            seed=options.seed,
        )
    return Made(
        made,
        simulate(scenario.pipeline, made.clocks, scenario.lags, pace_s=pace_s),
        simulate(scenario.pipeline, pace_s=straggler_s),
        straggler_s,
        held_s,
        coarser,
        robust,
        jitter,
    )


def _deadline_s(scenario: Scenario, options: Namespace) -> float | None:
    """The deadline that was given, if one was; one that is T_min but for a table's rounding means that."""
    if options.deadline is None:
        return None
    t_min_s = simulate(scenario.pipeline).iteration_time_s
    return t_min_s if t_min_s * (1 - _NEAR) <= options.deadline < t_min_s else float(options.deadline)


def _alternatives(scenario: Scenario, options: Namespace, deadline_s: float | None) -> tuple[Alternative, ...]:
    if options.straggler or options.energy_budget or options.power_budget:
        raise ObjectiveError("--alternatives goes with a slowdown or a deadline; leave out straggler and budgets.")
    return alternatives(
        scenario.pipeline,
        deadline_s=deadline_s,
        slowdown=options.slowdown or 0.0,
        lags=scenario.lags,
        reserve=options.reserve,
        min_dwell_s=options.min_dwell_ms,
    )


def _by(
    scenario: Scenario,
    options: Namespace,
    deadline_s: float | None,
    *,
    fixed: bool = False,
    reserve: float | None = None,
) -> Plan:
    slowdown = options.slowdown or 0.0
    if options.host_power is not None and not fixed:
        known = frontier(scenario.pipeline, 2, host_power_w=options.host_power)
        deadline_s = min(deadline_s or known.t_min_s * (1 + slowdown), known.t_star_free_s)
    return plan(
        scenario.pipeline,
        deadline_s=deadline_s,
        slowdown=slowdown if deadline_s is None else 0.0,
        granularity=options.granularity,
        lags=scenario.lags,
        reserve=options.reserve if reserve is None else reserve,
        fixed=fixed,
        min_dwell_s=options.min_dwell_ms,
        polish_s=options.polish,
    )


def _within(
    scenario: Scenario,
    options: Namespace,
    budget: float,
    unit: str,
    answer: Callable[[Frontier, float], FrontierPoint],
    spent: Callable[[Plan], float],
) -> tuple[Plan, float | None]:
    """The soonest plan within a budget, and its pace where it is held.

    No plan is sooner than the frontier allows; from there on later and later ones are tried, then those between.
    """
    known = frontier(scenario.pipeline, _POINTS)

    def by(time_s: float) -> tuple[Plan, float | None]:
        # Past T*_free a longer iteration costs energy, but lowers the power; it has to be held there.
        held = unit == "W" and time_s > known.t_star_free_s * _KEEPS
        return _by(scenario, options, time_s, fixed=held), time_s if held else None

    def within(found: tuple[Plan, float | None]) -> bool:
        return spent(found[0]) <= budget * _KEEPS

    last_s = known.t_star_fixed_s * (_BEYOND if unit == "J" else 1.0)
    best = by(last_s)
    if not within(best):
        finer = "" if options.granularity in ("auto", "instruction") else ", or a finer granularity"
        raise ObjectiveError(
            f"no plan {'costs' if unit == 'J' else 'draws'} as little as {budget:g} {unit}; the least is "
            f"{_rounded_up(spent(best[0]))} {unit}, at {best[0].iteration_time_s:.6g} s. Allow that much{finer}."
        )
    low_s = high_s = answer(known, budget).iteration_time_s
    step_s = _STEP * known.t_min_s
    while not within(best := by(high_s)):
        low_s, high_s, step_s = high_s, min(high_s + step_s, last_s), 2 * step_s
    while high_s - low_s > _STEP * known.t_min_s / 4:
        middle_s = (low_s + high_s) / 2
        if within(found := by(middle_s)):
            best, high_s = found, middle_s
        else:
            low_s = middle_s
    return best


def _rounded_up(value: float) -> str:
    """Six digits that are no less than the value."""
    digits = 5 - math.floor(math.log10(value))
    scale = 10.0**digits
    return f"{math.ceil(value * scale) / scale:.{max(0, digits)}f}"
