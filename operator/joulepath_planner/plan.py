"""A plan: the clock of every instruction, believed only after the referee has replayed it with lags.

Linear program, then clocks that the GPU has, then the replay. Where lags make the replay pass the deadline, the plan
is repaired by raising clocks; where that does not help, a coarser granularity is taken, in the end default clocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

from joulepath_planner.arguments import checked
from joulepath_planner.bound.frontier import Frontier
from joulepath_planner.clocks.repair import TOLERANCE
from joulepath_planner.draft import Draft, Drafting
from joulepath_planner.errors import ArgumentError, PlanningError
from joulepath_planner.graph.groups import Granularity
from joulepath_planner.inputs.instruction import Instruction
from joulepath_planner.inputs.lags import LagTable
from joulepath_planner.inputs.pipeline import Pipeline
from joulepath_planner.inputs.schedule import Clocks
from joulepath_planner.rungs import Rungs

__all__ = ["Plan", "PlannedInstruction", "RankPlan", "frontier_plans", "plan", "planned", "prepared"]

_LONGEST: Final = 100
"""Times T_min: no clocks of a GPU are so far apart."""


@dataclass(frozen=True, slots=True)
class PlannedInstruction:
    """clock_mhz None: default clocks (never, where a cap is under the profile's highest clock). duration_s and energy_j
    are the profile's at that clock, and what is extra (what the agent counts on when it raises early); start_s is when
    the referee saw it start."""

    instruction: Instruction
    clock_mhz: int | None
    start_s: float
    duration_s: float
    energy_j: float


@dataclass(frozen=True, slots=True)
class RankPlan:
    rank: int
    stages: tuple[int, ...]
    instructions: tuple[PlannedInstruction, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """iteration_time_s and energy_j are the referee's, with lags. Energies are joules of one iteration, waits
    included. lower_bound_j holds for every plan of supported clocks by the deadline, whatever its granularity, to
    within the solver's tolerance (a millionth); for clocks that switch at once where no lags were given."""

    granularity: Granularity | Literal["default"]
    deadline_s: float
    t_min_s: float
    iteration_time_s: float
    energy_j: float
    baseline_energy_j: float
    lower_bound_j: float
    ranks: tuple[RankPlan, ...]
    critical_path: tuple[Instruction, ...]
    switches: int

    @property
    def clocks(self) -> Clocks:
        """What `simulate` takes."""
        return tuple(tuple(one.clock_mhz for one in rank.instructions) for rank in self.ranks)

    @property
    def slowdown(self) -> float:
        return self.iteration_time_s / self.t_min_s - 1

    @property
    def optimality_gap(self) -> float:
        """How far the plan's energy is above the bound, as a fraction of the bound."""
        return self.energy_j / self.lower_bound_j - 1

    @property
    def predicted_savings(self) -> float:
        return 1 - self.energy_j / self.baseline_energy_j

    @property
    def bound_savings(self) -> float:
        return 1 - self.lower_bound_j / self.baseline_energy_j


@checked
def plan(
    pipeline: Pipeline,
    *,
    deadline_s: float | None = None,
    slowdown: float = 0.0,
    granularity: Granularity | Literal["auto"] = "auto",
    lags: LagTable | None = None,
    default_clock_mhz: int | None = None,
    reserve: float = 0.0,
    fixed: bool = False,
    min_dwell_s: float = 0.0,
    polish_s: float = 0.0,
) -> Plan:
    """The plan of least energy by a deadline: `deadline_s`, or T_min x (1 + `slowdown`).

    granularity: `auto` is the finest that pays; where instructions last under 4 lags (p95) on average, those
        under 4 share a clock with their neighbours (else those under 2), and phases are compared with that.
    lags: the lag table of the GPUs; None plans for clocks that switch at once.
    default_clock_mhz: the GPUs' own cap, where it is below the profile's highest clock.
    reserve: how much longer than measured, as a fraction, a slowed instruction may last without delaying the
        iteration: costs savings, buys calm where durations jitter.
    fixed: the iteration lasts until the deadline in any case, as when another pipeline is slower. Waits until then are
        counted, in the bound and in the baseline as well.
    min_dwell_s: least time between two sets of one GPU's clock.
    polish_s: seconds to spend on a plan of instruction granularity beyond the default effort. The plan then depends on
        how fast the machine is.

    Raises:
        ArgumentError: An argument is out of range, or doesn't go with another one.
        PlanningError: Default clocks miss the deadline.
        ScheduleError: An instruction waits for itself or for nobody.
    """
    if granularity != "auto" and granularity not in get_args(Granularity):
        known = ", ".join(get_args(Granularity))
        raise ArgumentError(f"granularity is {granularity!r}; it is one of {known}, auto.")
    if not 0 <= polish_s < float("inf"):
        raise ArgumentError(f"polish_s is {polish_s}; it is a number of seconds, 0 or more.")
    drafting, deadline = prepared(
        pipeline.capped(default_clock_mhz), deadline_s, slowdown, lags, reserve, min_dwell_s, fixed=fixed
    )
    return planned(drafting, deadline, granularity, polish_s, uncapped=pipeline)


def prepared(
    pipeline: Pipeline,
    deadline_s: float | None,
    slowdown: float,
    lags: LagTable | None,
    reserve: float,
    min_dwell_s: float,
    *,
    fixed: bool = False,
) -> tuple[Drafting, float]:
    """What `plan` starts from, for any granularity, and the deadline in seconds. Arguments and errors as `plan`."""
    if not 0 <= reserve < 1:
        raise ArgumentError(f"reserve is {reserve}; it is a fraction, 0 or more and under 1.")
    if not 0 <= min_dwell_s < float("inf"):
        raise ArgumentError(f"min_dwell_s is {min_dwell_s}; it is a number of seconds, 0 or more.")
    if not slowdown >= 0:
        raise ArgumentError(f"slowdown is {slowdown}; it is a fraction of T_min, 0 or more.")
    if deadline_s is not None and slowdown:
        raise ArgumentError(f"deadline_s is {deadline_s} and slowdown {slowdown}; give one of them.")
    drafting = Drafting(pipeline, lags, reserve=reserve, fixed=fixed, min_dwell_s=min_dwell_s)
    problem = drafting.problem
    deadline = problem.t_min_s * (1 + slowdown) if deadline_s is None else deadline_s
    if deadline > problem.t_min_s * _LONGEST:
        raise ArgumentError(
            f"the deadline of {deadline:g} s is over {_LONGEST} times T_min, {problem.t_min_s:.6g} s: is it in seconds?"
        )
    if not deadline >= problem.t_min_s * (1 - TOLERANCE):
        raise PlanningError(
            f"the deadline of {deadline:g} s is under T_min, what an iteration takes at default clocks; allow "
            f"{math.ceil(problem.t_min_s * 1e4) / 1e4:.4f} s."
        )
    return drafting, max(deadline, problem.t_min_s)


def planned(
    drafting: Drafting,
    deadline_s: float,
    granularity: Granularity | Literal["auto"],
    polish_s: float = 0.0,
    *,
    uncapped: Pipeline,
) -> Plan:
    """The cheapest plan of at most this granularity. uncapped: the pipeline without the GPUs' own cap."""
    best, levels = drafting.default(deadline_s), _COARSER[granularity]
    if levels[0] == "instruction" and drafting.is_plain:
        (best,) = Rungs(drafting).drafts([deadline_s])
        levels = levels[: bool(polish_s)]
    for coarser in levels:
        draft = drafting.draft(coarser, deadline_s, polish_s, best.replay.energy_j)
        if draft and draft.replay.energy_j < best.replay.energy_j:
            best = draft
        if draft and not drafting.shares(coarser):
            break
    if granularity in ("auto", "instruction"):
        draft = drafting.quick_draft(deadline_s, polish_s, best.replay.energy_j)
        if draft and draft.replay.energy_j < best.replay.energy_j:
            best = draft
    return _plan(drafting, deadline_s, best, drafting.bound_below_j(best, deadline_s), uncapped)


@checked
def frontier_plans(
    pipeline: Pipeline, points: int | None = 33, *, default_clock_mhz: int | None = None
) -> tuple[Frontier, tuple[Plan, ...]]:
    """`frontier`, and for each of its points the plan of instruction granularity for exactly that iteration time.

    Each is the plan that `plan` makes for that time (`fixed`), or, where the blocking power depends on the clock, one
    made with less effort. Takes far less than the plans one by one: all are rounded together.
    """
    if points is not None and points < 2:
        raise ArgumentError(f"points is {points}; a frontier has at least its 2 ends.")
    drafting = Drafting(pipeline.capped(default_clock_mhz), fixed=True)
    rungs = Rungs(drafting)
    found = drafting.frontier(points, rungs.solution)
    times = [point.iteration_time_s for point in found.points]
    made = zip(times, rungs.drafts(times), strict=True)
    return found, tuple(_plan(drafting, time, draft, drafting.bound(time).energy_j, pipeline) for time, draft in made)


_COARSER: Final[dict[str, tuple[Granularity, ...]]] = {
    "auto": ("instruction", "phase", "kind", "rank"),
    "instruction": ("instruction", "phase", "kind", "rank"),
    "phase": ("phase", "rank"),
    "kind": ("kind", "rank"),
    "rank": ("rank",),
}
"""What to try, in order."""


def _plan(drafting: Drafting, deadline_s: float, best: Draft, bound_j: float, uncapped: Pipeline) -> Plan:
    pipeline, ranks = drafting.problem.pipeline, []
    defaults = {stage: pipeline.profile.default_clock_mhz(stage) for stage in pipeline.profile.stages}
    # A cap is named: to others, None is the profile's highest clock.
    caps = {stage for stage, clock in defaults.items() if clock < uncapped.profile.default_clock_mhz(stage)}
    for rank, (events, clocks) in enumerate(zip(best.replay.ranks, best.clocks, strict=True)):
        gpus, planned = pipeline.rank_gpus(rank), []
        for event, clock in zip(events, clocks, strict=True):
            one = event.instruction
            actual = clock or defaults[one.stage]
            seconds, joules = drafting.referee.at(one, actual)
            if extra_s := pipeline.extra(one):
                seconds, joules = seconds + extra_s, joules + extra_s * pipeline.profile.wait_power_w(actual)
            named = actual if one.stage in caps else clock
            planned.append(PlannedInstruction(one, named, event.start_s, seconds, joules * gpus))
        stages = tuple(sorted({event.instruction.stage for event in events}))
        ranks.append(RankPlan(rank, stages, tuple(planned)))
    return Plan(
        granularity=best.granularity or "default",
        deadline_s=deadline_s,
        t_min_s=drafting.problem.t_min_s,
        iteration_time_s=best.replay.iteration_time_s,
        energy_j=best.replay.energy_j,
        baseline_energy_j=drafting.baseline_j(deadline_s),
        lower_bound_j=bound_j,
        ranks=tuple(ranks),
        critical_path=best.replay.critical_path,
        switches=best.replay.switches,
    )
