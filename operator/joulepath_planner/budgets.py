"""The soonest plan within a budget of joules or of watts.

No plan is sooner within it than the frontier allows. Plans of clocks that the GPU has need a little longer; so later
and later ones are made until one keeps the budget, then ones between the last that didn't and the first that did.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from joulepath_planner.arguments import checked
from joulepath_planner.bound.frontier import Frontier, frontier
from joulepath_planner.bound.objectives import least_time_within_energy, least_time_within_power
from joulepath_planner.errors import ArgumentError, ObjectiveError
from joulepath_planner.graph.groups import Granularity
from joulepath_planner.inputs.lags import LagTable
from joulepath_planner.inputs.pipeline import Pipeline
from joulepath_planner.plan import Plan, plan

__all__ = ["BudgetPlan", "plan_within"]

_POINTS: Final = 129
_KEEPS: Final = 1 + 1e-9
_STEP: Final = 2e-3
"""Of T_min: how closely the soonest plan is looked for."""
_BEYOND: Final = 2.0
"""Of T*_fixed: clocks that are shared may cost least somewhat later."""


@dataclass(frozen=True, slots=True)
class BudgetPlan:
    """held_s: the iteration time at which the plan has to be held, as ending sooner it would draw more."""

    plan: Plan
    held_s: float | None


@checked
def plan_within(
    pipeline: Pipeline,
    *,
    energy_j: float | None = None,
    power_w: float | None = None,
    granularity: Granularity | Literal["auto"] = "auto",
    lags: LagTable | None = None,
    reserve: float = 0.0,
    min_dwell_s: float = 0.0,
    polish_s: float = 0.0,
) -> BudgetPlan:
    """The plan of least iteration time within one of the two budgets; other arguments as `plan`.

    energy_j: joules of an iteration, all GPUs together. power_w: watts of all GPUs, averaged over an iteration.

    Raises:
        ArgumentError: None or both of the budgets are given.
        ObjectiveError: No plan keeps the budget.
    """
    if (energy_j is None) == (power_w is None):
        raise ArgumentError(f"energy_j is {energy_j} and power_w {power_w}; give one of them.")
    budget = _Budget(energy_j, "J") if energy_j is not None else _Budget(power_w or 0.0, "W")
    known = frontier(pipeline, _POINTS)

    def by(time_s: float) -> BudgetPlan:
        held = budget.is_held(known, time_s)
        made = plan(
            pipeline,
            deadline_s=time_s,
            granularity=granularity,
            lags=lags,
            reserve=reserve,
            fixed=held,
            min_dwell_s=min_dwell_s,
            polish_s=polish_s,
        )
        return BudgetPlan(made, time_s if held else None)

    last_s = budget.last_s(known)
    best = by(last_s)
    if not budget.is_kept(best.plan):
        raise budget.refusal(best.plan, granularity)
    low_s = high_s = budget.first_s(known)
    step_s = _STEP * known.t_min_s
    while not budget.is_kept((best := by(high_s)).plan):
        low_s, high_s, step_s = high_s, min(high_s + step_s, last_s), 2 * step_s
    while high_s - low_s > _STEP * known.t_min_s / 4:
        middle_s = (low_s + high_s) / 2
        if budget.is_kept((found := by(middle_s)).plan):
            best, high_s = found, middle_s
        else:
            low_s = middle_s
    return best


@dataclass(frozen=True, slots=True)
class _Budget:
    amount: float
    unit: Literal["J", "W"]

    def first_s(self, known: Frontier) -> float:
        """Before this no plan keeps the budget."""
        answer = least_time_within_energy if self.unit == "J" else least_time_within_power
        return answer(known, self.amount).iteration_time_s

    def last_s(self, known: Frontier) -> float:
        """After this no plan keeps what none has kept before."""
        return known.t_star_fixed_s * (_BEYOND if self.unit == "J" else 1.0)

    def is_held(self, known: Frontier, time_s: float) -> bool:
        """Past T*_free a longer iteration costs energy, but lowers the power; it has to be held there."""
        return self.unit == "W" and time_s > known.t_star_free_s * _KEEPS

    def is_kept(self, made: Plan) -> bool:
        return self._spent(made) <= self.amount * _KEEPS

    def refusal(self, least: Plan, granularity: str) -> ObjectiveError:
        finer = "" if granularity in ("auto", "instruction") else ", or a finer granularity"
        return ObjectiveError(
            f"no plan {'costs' if self.unit == 'J' else 'draws'} as little as {self.amount:g} {self.unit}; the least "
            f"is {_rounded_up(self._spent(least))} {self.unit}, at {least.iteration_time_s:.6g} s. Allow that much"
            f"{finer}."
        )

    def _spent(self, made: Plan) -> float:
        return made.energy_j if self.unit == "J" else made.energy_j / made.iteration_time_s


def _rounded_up(value: float) -> str:
    """Six digits that are no less than the value."""
    digits = 5 - math.floor(math.log10(value))
    scale = 10.0**digits
    return f"{math.ceil(value * scale) / scale:.{max(0, digits)}f}"
