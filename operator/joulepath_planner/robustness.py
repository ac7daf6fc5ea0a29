"""What jitter does to a plan: the iteration time's spread by Monte Carlo on the referee, and a plan that stands it.

Two things make a measured duration uncertain. What one execution takes beside the mean: *jitter*, drawn anew for each
execution. And what is not known of the mean: the profile's standard errors, drawn for each (stage, kind, clock) alike
for all executions of an iteration. At default clocks too the longest of many jittering paths is mostly longer than
T_min, so a plan is compared with default clocks in the same draws: what it is slower there is its own doing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np

from joulepath_planner.arguments import check_fields, checked
from joulepath_planner.errors import ArgumentError, ProfileError
from joulepath_planner.inputs.instruction import Instruction
from joulepath_planner.inputs.lags import LagTable
from joulepath_planner.inputs.pipeline import Pipeline
from joulepath_planner.inputs.schedule import Clocks
from joulepath_planner.plan import Plan, PlannedInstruction, plan
from joulepath_planner.referee.replay import Stretch, simulate

__all__ = ["MARGIN", "SAMPLES", "Noise", "RobustPlan", "Robustness", "Spread", "robust_plan", "robustness"]

SAMPLES: Final = 200
MARGIN: Final = 0.005
"""How much slower than default clocks still counts as no slower."""
_MOST_SAMPLES: Final = 100_000
_FIRST_RESERVE: Final = 0.005
_LAST_RESERVE: Final = 0.32
_HALVINGS: Final = 2
_LEAST_FACTOR: Final = 0.1


@dataclass(frozen=True, slots=True)
class Noise:
    """jitter: standard deviation of one execution's duration, as a fraction of its mean (log-normal, mean 1).
    errors: whether the profile's standard errors count too. Both scale joules as they scale seconds.
    """

    jitter: float = 0.0
    errors: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.jitter < 1:
            raise ArgumentError(f"jitter is {self.jitter:g}; it is a fraction of an instruction's seconds, under 1.")


@dataclass(frozen=True, slots=True)
class Spread:
    """Iteration times in seconds."""

    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class Robustness:
    """A plan and default clocks in the same draws. slowdowns: of each iteration, ascending; energies: mean joules."""

    plan: Spread
    default: Spread
    slowdowns: tuple[float, ...]
    energy_j: float
    default_energy_j: float

    @checked
    def slowdown_at(self, quantile: float) -> float:
        """The slowdown that this share of iterations doesn't exceed.

        Raises:
            ArgumentError: The share is none.
        """
        if not 0 <= quantile <= 1:
            raise ArgumentError(f"quantile is {quantile:g}; give a share of the iterations, from 0 to 1.")
        return float(np.quantile(self.slowdowns, quantile))

    @checked
    def share_over(self, bound: float) -> float:
        """The share of iterations slower than default clocks by more than this fraction."""
        return sum(slowdown > bound for slowdown in self.slowdowns) / len(self.slowdowns)


@dataclass(frozen=True, slots=True)
class RobustPlan:
    """A plan that keeps its bound in a share of iterations, and the one without that care.

    bound: the slowdown kept, margin included; cost_j: what the care costs in joules an iteration, without noise.
    """

    plan: Plan
    reserve: float
    bound: float
    robustness: Robustness
    careless: Plan
    careless_robustness: Robustness

    @property
    def cost_j(self) -> float:
        return self.plan.energy_j - self.careless.energy_j


@checked
def robustness(
    pipeline: Pipeline,
    clocks: Clocks,
    noise: Noise,
    *,
    lags: LagTable | None = None,
    pace_s: float | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Robustness:
    """Replay so many iterations of a plan's clocks and of default clocks with this noise, and with the lags' spread.

    pace_s: the iteration time of a straggler that both wait for.
    Of GPUs with a cap of their own, give `pipeline.capped(cap)`: default clocks are the cap then. The same seed gives
    the same figures.

    Raises:
        ProfileError: There is no noise to replay.
        ArgumentError: There are too few samples, or too many.
    """
    if not 2 <= samples <= _MOST_SAMPLES:
        raise ArgumentError(f"samples is {samples}; a spread needs at least 2, and up to {_MOST_SAMPLES} are replayed.")
    with_errors = noise.errors and any(
        point.time_se_s for points in pipeline.profile.points.values() for point in points
    )
    if not noise.jitter and not with_errors:
        raise ProfileError(
            "the profile has no standard errors, and no jitter is given; give one, such as `--jitter 1%` or "
            "`Noise(jitter=0.01)`."
        )
    planned, default = (
        simulate(
            pipeline,
            which,
            lags,
            samples + 1,
            pace_s=pace_s,
            stretch=_stretch(pipeline, which, noise, seed),
            seed=seed,
        )
        for which in (clocks, None)
    )
    times, default_times = np.array(planned.iteration_times_s), np.array(default.iteration_times_s)
    return Robustness(
        plan=_spread(times),
        default=_spread(default_times),
        slowdowns=tuple(sorted((times / default_times - 1).tolist())),
        energy_j=planned.energy_j,
        default_energy_j=default.energy_j,
    )


@checked
def robust_plan(
    pipeline: Pipeline,
    noise: Noise,
    make: Callable[[float], Plan] | None = None,
    *,
    quantile: float = 0.95,
    margin: float = MARGIN,
    lags: LagTable | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    progress: Callable[[], object] = lambda: None,
) -> RobustPlan:
    """The plan of least reserve whose slowdown keeps its bound in a share `quantile` of iterations.

    make: the plan for a reserve (default: at T_min, with these lags). The bound is how far its deadline is over T_min,
        and the margin.
    progress: called after each plan that was tried.
    The reserve is doubled until the bound holds, then halved in on. Where none up to a third holds, the clocks are
    default ones.

    Raises:
        ArgumentError: The quantile is no share.
        ProfileError: There is no noise to replay.
    """
    if not 0 < quantile < 1:
        raise ArgumentError(
            f"quantile is {quantile:g}; it is the share of iterations that keep the bound, such as 0.95."
        )

    def tried(reserve: float) -> tuple[Plan, Robustness, float]:
        made = make(reserve) if make else plan(pipeline, lags=lags, reserve=reserve)
        found = made, robustness(pipeline, made.clocks, noise, lags=lags, samples=samples, seed=seed), reserve
        progress()
        return found

    careless = best = tried(0.0)
    bound = careless[0].deadline_s / careless[0].t_min_s - 1 + margin

    def holds(one: tuple[Plan, Robustness, float]) -> bool:
        return one[1].slowdown_at(quantile) <= bound

    low = 0.0
    while not holds(best) and best[2] < _LAST_RESERVE:
        low, best = best[2], tried(max(_FIRST_RESERVE, 2 * best[2]))
    if not holds(best):
        made = _at_default_clocks(pipeline, careless[0])
        best = made, robustness(pipeline, made.clocks, noise, lags=lags, samples=samples, seed=seed), 1.0
    elif best[2]:
        for _ in range(_HALVINGS):
            middle = tried((low + best[2]) / 2)
            if holds(middle):
                best = middle
            else:
                low = middle[2]
    return RobustPlan(best[0], best[2], bound, best[1], careless[0], careless[1])


def _at_default_clocks(pipeline: Pipeline, made: Plan) -> Plan:
    seen = simulate(pipeline)
    ranks = tuple(
        replace(
            rank,
            instructions=tuple(
                PlannedInstruction(event.instruction, None, event.start_s, event.duration_s, event.energy_j)
                for event in events
            ),
        )
        for rank, events in zip(made.ranks, seen.ranks, strict=True)
    )
    return replace(
        made,
        granularity="default",
        iteration_time_s=seen.iteration_time_s,
        energy_j=seen.energy_j,
        ranks=ranks,
        critical_path=seen.critical_path,
        switches=0,
    )


def _spread(times: np.ndarray) -> Spread:
    p50, p95, p99 = (float(value) for value in np.quantile(times, (0.5, 0.95, 0.99)))
    return Spread(float(times.mean()), p50, p95, p99)


def _stretch(pipeline: Pipeline, clocks: Clocks | None, noise: Noise, seed: int) -> Stretch:
    """The factors of an iteration depend on seed, iteration, instruction and clock only: plans meet the same draws."""
    profile, orders = pipeline.profile, pipeline.schedule.orders
    place = {one: index for index, one in enumerate(one for order in orders for one in order)}
    sigma = math.sqrt(math.log1p(noise.jitter**2))
    points = [(key, point) for key, series in profile.points.items() for point in series]
    number = {(*key, point.clock_mhz): index for index, (key, point) in enumerate(points)}
    errors = np.array([point.time_se_s / point.time_s for _, point in points]) * noise.errors
    clock_of = {
        one: clock or profile.default_clock_mhz(one.stage)
        for order, row in zip(orders, clocks or [[None] * len(order) for order in orders], strict=True)
        for one, clock in zip(order, row, strict=True)
    }
    # What is fixed may run at a clock that was measured for another stage of its rank only.
    of_point = {
        one: number.get((one.stage, one.kind, clock), number[one.stage, one.kind, profile.default_clock_mhz(one.stage)])
        for one, clock in clock_of.items()
    }

    @lru_cache(maxsize=2)
    def drawn(iteration: int) -> tuple[list[float], list[float]]:
        source = np.random.default_rng((seed, iteration))
        executions = source.lognormal(-sigma * sigma / 2, sigma, len(place))
        means = np.maximum(1 + errors * source.standard_normal(len(points)), _LEAST_FACTOR)
        return executions.tolist(), means.tolist()

    def factor(iteration: int, one: Instruction) -> float:
        executions, means = drawn(iteration)
        return executions[place[one]] * means[of_point[one]]

    return factor
