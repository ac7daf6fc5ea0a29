"""What the user wants of a plan, and the plan that gives it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, get_args

from joulepath_cli import quantities
from joulepath_cli.commands.scenario import Scenario
from joulepath_planner import (
    Alternative,
    Certainty,
    Granularity,
    Noise,
    ObjectiveError,
    Plan,
    Robustness,
    RobustPlan,
    Simulation,
    alternatives,
    certainty,
    frontier,
    plan,
    plan_within,
    robust_plan,
    robustness,
    simulate,
)
from joulepath_planner.robustness import MARGIN, SAMPLES

__all__ = ["GRANULARITIES", "Made", "add_arguments", "deadline_s", "make", "straggler_s"]

GRANULARITIES: Final = ("auto", *get_args(Granularity))
_NEAR: Final = 1e-4
"""What a deadline that was copied from a table may be under T_min."""


@dataclass(frozen=True, slots=True)
class Made:
    """A plan and its replay.

    straggler_s: T' of the pipeline that it waits for; held_s: the time it is held at, for its power; alternatives,
    robust, jitter: where they were asked for. certainty: where clocks were filled in, and nothing else fixes the time.
    """

    plan: Plan
    replay: Simulation
    default: Simulation
    straggler_s: float | None = None
    held_s: float | None = None
    alternatives: tuple[Alternative, ...] = ()
    robust: RobustPlan | None = None
    jitter: Robustness | None = None
    certainty: Certainty | None = None

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
        default=MARGIN,
        metavar="SHARE",
        help=f"how much slower than default clocks under the same jitter counts as no slower (default: {MARGIN:.1%}%)",
    )
    noise.add_argument(
        "--samples", type=quantities.count, default=SAMPLES, metavar="N", help=f"iterations to replay ({SAMPLES})"
    )
    noise.add_argument(
        "--seed", type=quantities.whole, default=0, metavar="N", help="the same seed gives the same figures (0)"
    )


def make(scenario: Scenario, options: Namespace, progress: Callable[[], object] = lambda: None) -> Made:
    """Plan. progress: called after each plan that was tried.

    Raises:
        PlannerError: No plan gives what is wanted; a sentence says why.
    """
    pace_s, held_s, robust = None, None, None
    if options.quantile is not None and (options.straggler or options.energy_budget or options.power_budget):
        raise ObjectiveError("--quantile keeps a slowdown or a deadline; leave out straggler and budgets.")
    if options.host_power is not None and (options.energy_budget or options.power_budget or options.alternatives):
        raise ObjectiveError("--host-power goes with a slowdown or a deadline; leave out budgets and --alternatives.")
    if options.quantile is not None and options.reserve:
        raise ObjectiveError("--quantile looks for the reserve itself; leave out --reserve.")
    by_s = None if options.deadline is None else deadline_s(scenario, options.deadline)
    coarser = _alternatives(scenario, options, by_s) if options.alternatives else ()
    if options.straggler is not None:
        pace_s = straggler_s(scenario, options.straggler)
        made = _by(scenario, options, pace_s, fixed=True)
    elif options.energy_budget is not None or options.power_budget is not None:
        within = plan_within(
            scenario.pipeline,
            energy_j=options.energy_budget,
            power_w=options.power_budget,
            granularity=options.granularity,
            lags=scenario.lags,
            reserve=options.reserve,
            min_dwell_s=options.min_dwell_ms,
            polish_s=options.polish,
        )
        made, held_s = within.plan, within.held_s
    elif options.quantile is not None:
        robust = robust_plan(
            scenario.pipeline,
            Noise(options.jitter or 0.0),
            lambda reserve: _by(scenario, options, by_s, reserve=reserve),
            quantile=options.quantile,
            margin=options.margin,
            lags=scenario.lags,
            samples=options.samples,
            seed=options.seed,
            progress=progress,
        )
        made = robust.plan
    else:
        made = _by(scenario, options, by_s)
    jitter = None if robust is None else robust.robustness
    if jitter is None and options.jitter is not None:
        noise = Noise(options.jitter)
        jitter = robustness(
            scenario.pipeline,
            made.clocks,
            noise,
            lags=scenario.lags,
            pace_s=pace_s or held_s,
            samples=options.samples,
            seed=options.seed,
        )
    return Made(
        made,
        simulate(scenario.pipeline, made.clocks, scenario.lags, pace_s=pace_s or held_s),
        simulate(scenario.pipeline, pace_s=pace_s),
        pace_s,
        held_s,
        coarser,
        robust,
        jitter,
        certainty(scenario.pipeline, made.clocks, scenario.fitted) if scenario.fitted and pace_s is None else None,
    )


def deadline_s(scenario: Scenario, given_s: float) -> float:
    """The deadline that is meant: one that is T_min but for a table's rounding means that."""
    t_min_s = simulate(scenario.pipeline).iteration_time_s
    return t_min_s if t_min_s * (1 - _NEAR) <= given_s < t_min_s else given_s


def straggler_s(scenario: Scenario, given: tuple[float | None, float | None]) -> float:
    """The iteration time of a straggler, given as times T_min or in seconds.

    Raises:
        ObjectiveError: It is faster than this pipeline.
    """
    factor, seconds = given
    t_min_s = simulate(scenario.pipeline).iteration_time_s
    found_s = seconds or (factor or 0.0) * t_min_s
    if found_s < t_min_s * (1 - _NEAR):
        raise ObjectiveError(
            f"the straggler takes {found_s:.4f} s, and this pipeline {t_min_s:.4f} s at default clocks: "
            "there is nothing to wait for. Leave --straggler out."
        )
    return max(t_min_s, found_s)


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
