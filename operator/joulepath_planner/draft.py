"""Drafts of a plan: linear program, then clocks that the GPU has, then the replay, at one granularity.

The solver knows one blocking power, the least of the profile. Where the blocking power depends on the clock, the waits
of a draft cost more than that; so the solver is asked once more, with what they cost in the first draft, and the
referee says which of the two drafts is cheaper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from joulepath_planner.bound.discrete import CLOSE, DiscreteBound
from joulepath_planner.bound.frontier import Frontier, t_fixed_s, trace
from joulepath_planner.bound.problem import Problem
from joulepath_planner.clocks.reclaim import choose, rounded, rounded_alone
from joulepath_planner.clocks.repair import TOLERANCE, Assignment, repair
from joulepath_planner.clocks.rounding import Effort, Rounder, effort
from joulepath_planner.clocks.switches import calm
from joulepath_planner.errors import PlanningError, ProfileError, SolverError
from joulepath_planner.graph.groups import Granularity, groups, least_hold_s, runs
from joulepath_planner.graph.network import Network
from joulepath_planner.graph.options import Options, OptionTable
from joulepath_planner.inputs.lags import LagTable
from joulepath_planner.inputs.pipeline import Pipeline
from joulepath_planner.inputs.schedule import Clocks
from joulepath_planner.referee.replay import Referee, Simulation
from joulepath_planner.solvers.simplex import Simplex
from joulepath_planner.solvers.solution import SOLVER_TOLERANCE_S, Program, Solution
from joulepath_planner.solvers.whole import WholeClocks

__all__ = ["Draft", "Drafting"]

_LARGE: Final = 4000
"""Instructions from which on the linear program isn't solved once more for a reserve, for shared clocks or for shorter
times, and instructions that share clocks are not compared with coarser granularities."""

_MOST_WINDOWED: Final = 2000
"""Instructions up to which more effort is made where the gap is wide, for clocks and for the bound."""

_MOST_OPTIONS: Final = 900
"""Of all groups together, up to which the best clocks are looked for."""

_QUICK: Final = 2
"""A clock that takes up to so many times as long to switch to as the default one is quick."""


@dataclass(frozen=True, slots=True)
class Draft:
    """granularity None: default clocks."""

    granularity: Granularity | None
    clocks: Clocks
    replay: Simulation


@dataclass(frozen=True, slots=True)
class _View:
    """What the solver is told: the problem, what clocks cost, and what all waits together cost over its power_w."""

    problem: Problem
    table: OptionTable
    more_wait_w: float = 0.0

    def options(self, members: Sequence[Sequence[int]], *, every: bool = False) -> list[Options]:
        instructions = self.problem.graph.instructions
        return [self.table.of([instructions[node] for node in group], every=every) for group in members]


class Drafting:
    """A pipeline made ready to be drafted for one deadline after the other.

    fixed: the iteration lasts until the deadline in any case; waits until then are counted.
    min_dwell_s: the least time between two sets of a GPU's clock.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        lags: LagTable | None = None,
        *,
        reserve: float = 0.0,
        fixed: bool = False,
        min_dwell_s: float = 0.0,
    ) -> None:
        self.problem = Problem.of(pipeline)
        self.referee = Referee(pipeline)
        self._lags = lags and lags.among(pipeline.profile.clocks_mhz)
        self.fixed, self._reserve = fixed, reserve
        self._min_dwell_s = min_dwell_s
        self._network = Network(self.problem.graph)
        self._solved: dict[float, Solution] = {}

    @cached_property
    def _exact(self) -> tuple[Program, list[Options]]:
        return self.problem.program(self.problem.single)

    def bound(self, deadline_s: float, after_s: float | None = None) -> Solution:
        """The linear program's optimum at the finest granularity, with what is measured.

        after_s: as `Program.solve`.
        """
        if deadline_s not in self._solved:
            self._solved[deadline_s] = self._solve(self._exact[0], deadline_s, after_s)
        return self._solved[deadline_s]

    @property
    def remembers(self) -> bool:
        """Whether which optimum `bound` finds, of several, depends on what was solved before."""
        return isinstance(self._exact[0], Simplex)

    def bound_below_j(self, draft: Draft, deadline_s: float) -> float:
        """What no plan goes below: by the linear program, or, where that is far below a draft of one clock for each
        instruction and clocks switch at once, by whole clocks."""
        least_j, options = self.bound(deadline_s).energy_j, self._exact[1]
        far = draft.replay.energy_j > least_j * (1 + CLOSE)
        if self._lags or draft.granularity != "instruction" or not far or len(options) > _MOST_WINDOWED:
            return least_j
        problem, at_least_s = self.problem, deadline_s if self.fixed else 0.0
        try:
            discrete = DiscreteBound(problem.graph, options, problem.idle_w, at_least_s, deadline_s)
        except ArithmeticError:
            return least_j
        return discrete.least_j(least_j, draft.replay.energy_j)

    def relaxed_bound_j(self, granularity: Granularity, deadline_s: float) -> float:
        """A lower bound for clocks that switch at once, as if each kind in a group had a clock of its own."""
        if granularity == "instruction":
            return self.bound(deadline_s).energy_j
        instructions = self.problem.graph.instructions
        parts: dict[tuple[int, int, str], list[int]] = {}
        for number, group in enumerate(groups(self.problem.graph, self.problem.pipeline.schedule, granularity)):
            for node in group:
                one = instructions[node]
                parts.setdefault((number, one.stage, one.kind), []).append(node)
        return self._solve(self.problem.program(list(parts.values()))[0], deadline_s).energy_j

    def default(self, deadline_s: float) -> Draft:
        """Default clocks throughout."""
        orders = self.problem.pipeline.schedule.orders
        clocks = tuple((None,) * len(order) for order in orders)
        # Clocks that never switch have no lags: only a time that is fixed makes this another replay.
        return Draft(None, clocks, self._replay(clocks, deadline_s) if self.fixed else self._default)

    @cached_property
    def _default(self) -> Simulation:
        return self.referee.replay()

    def baseline_j(self, deadline_s: float) -> float:
        """Energy at default clocks; with waits until the deadline if the time is fixed."""
        waits_s = deadline_s - self._default.iteration_time_s if self.fixed else 0.0
        return self._default.energy_j + waits_s * self.problem.default_wait_w

    def frontier(self, points: int | None, solve: Callable[[float], Solution]) -> Frontier:
        """As `frontier`. solve: `bound`, or what calls it."""
        program, options = self._exact
        return trace(self.problem, options, solve, program, points)

    @cached_property
    def t_fixed_s(self) -> float:
        """T*_fixed."""
        return t_fixed_s(self.problem, self._exact[1])

    @property
    def is_plain(self) -> bool:
        """Whether the solver and the referee know the same costs, and each instruction may have a clock of its own."""
        held = self._lags or self._reserve or self._min_dwell_s
        mapped = isinstance(self.problem.pipeline.profile.blocking_power_w, Mapping)
        return not held and not mapped

    @property
    def is_large(self) -> bool:
        """Whether a linear program takes so long that no more of them than needed are solved."""
        return self._size >= _LARGE

    @property
    def _size(self) -> int:
        return len(self.problem.graph.instructions)

    def draft(
        self, granularity: Granularity, deadline_s: float, polish_s: float = 0.0, below_j: float = math.inf
    ) -> Draft | None:
        """The cheapest draft of a granularity that keeps the deadline; None if none does, or none can cost less than
        below_j."""
        view, best = self._view, self._draft(self._view, granularity, deadline_s, below_j=below_j)
        if best is None:
            return None
        if isinstance(self.problem.pipeline.profile.blocking_power_w, Mapping):
            priced = self._priced(best.replay.wait_power_w)
            again = self._draft(priced, granularity, deadline_s, below_j=best.replay.energy_j)
            if again is not None and again.replay.energy_j < best.replay.energy_j:
                view, best = priced, again
        if polish_s and granularity == "instruction" and not self.shares(granularity):
            polished = self._draft(view, granularity, deadline_s, polish_s)
            if polished is not None and polished.replay.energy_j < best.replay.energy_j:
                best = polished
        return best

    @cached_property
    def runs(self) -> list[list[int]]:
        """The groups of instruction granularity: instructions alone where they last long enough for a clock of their
        own, others together with their neighbours."""
        return self._runs(self._lags)

    def _runs(self, lags: LagTable | None) -> list[list[int]]:
        up_s, p95_s = (lags.worst_p95_up_s, lags.worst_p95_s) if lags else (0.0, 0.0)
        profile, graph = self.problem.pipeline.profile, self.problem.graph
        lasts_s = [profile.default(one.stage, one.kind).time_s for one in graph.instructions]
        least_s = max(least_hold_s(lasts_s, p95_s), self._min_dwell_s + up_s if self._min_dwell_s else 0.0)
        return runs(graph, lasts_s, least_s)

    def quick_draft(self, deadline_s: float, polish_s: float = 0.0, below_j: float = math.inf) -> Draft | None:
        """As `draft` at instruction granularity, with clocks alone that are quick to switch to; None as well where no
        more instructions have clocks of their own then."""
        quick = self._quick
        if quick is None or (draft := quick.draft("instruction", deadline_s, polish_s, below_j)) is None:
            return None
        draft = self.held(draft, deadline_s)
        return draft if draft.replay.iteration_time_s <= deadline_s * (1 + TOLERANCE) else None

    @cached_property
    def _quick(self) -> Drafting | None:
        lags, pipeline = self._lags, self.problem.pipeline
        if lags is None:
            return None
        profile = pipeline.profile
        limit_s = _QUICK * max(lags.p95_s(profile.default_clock_mhz(stage)) for stage in profile.stages)
        quick = {clock for clock in profile.clocks_mhz if lags.p95_s(clock) <= limit_s}
        if len(self._runs(lags.among(quick))) <= len(self.runs):
            return None
        try:
            thinned = replace(pipeline, profile=profile.among(quick))
        except ProfileError:  # nothing is left to choose from
            return None
        return Drafting(thinned, lags, reserve=self._reserve, fixed=self.fixed, min_dwell_s=self._min_dwell_s)

    def shares(self, granularity: Granularity) -> bool:
        """Whether clocks are shared such that a coarser granularity may be cheaper, with its fewer switches.

        Where these cost time of their own, any may be.
        """
        return (
            bool(self._lags and self._lags.pause_s)
            or granularity in ("phase", "kind")
            or (granularity == "instruction" and len(self.runs) < len(self.problem.graph.instructions) < _LARGE)
        )

    def fine(self, deadlines_s: Sequence[float], solutions: Sequence[Solution]) -> list[Draft]:
        """Drafts of instruction granularity, or default clocks where those are cheaper, from the linear program's
        optimum for each deadline. Each depends on its own alone; all are rounded together, much faster than one by one,
        and with more effort those that are far above the optimum."""
        drafts = self._rounded(deadlines_s, solutions, effort(self._size, together=True))
        far = [
            place
            for place, (draft, solution) in enumerate(zip(drafts, solutions, strict=True))
            if self._size <= _MOST_WINDOWED and draft.replay.energy_j > solution.energy_j * (1 + CLOSE)
        ]
        again = self._rounded([deadlines_s[at] for at in far], [solutions[at] for at in far], effort(self._size))
        for place, draft in zip(far, again, strict=True):
            drafts[place] = min(drafts[place], draft, key=lambda one: one.replay.energy_j)
        return drafts

    def _rounded(self, deadlines_s: Sequence[float], solutions: Sequence[Solution], how: Effort) -> list[Draft]:
        members, options = self.problem.single, self._view.options(self.problem.single)
        periods = [_period_s(one, deadline) for one, deadline in zip(solutions, deadlines_s, strict=True)]
        rounder = Rounder(self.problem.graph, options, self._network)
        chosen = rounder.choose(periods, [one.extra_s for one in solutions], how) if periods else []
        drafts = []
        for choices, deadline in zip(chosen, deadlines_s, strict=True):
            draft = choices and self._repaired("instruction", members, options, choices, deadline)
            pays = draft and draft.replay.energy_j < self.baseline_j(deadline)
            drafts.append(draft if draft and pays else self.default(deadline))
        return drafts

    def held(self, draft: Draft, time_s: float) -> Draft:
        """The same clocks with waits until this time."""
        return replace(draft, replay=self._replay(draft.clocks, time_s))

    @cached_property
    def _view(self) -> _View:
        if not self._reserve:
            return _View(self.problem, self.problem.table)
        pipeline = self.problem.pipeline
        table = OptionTable(pipeline.profile, self.problem.power_w, self._reserve, pipeline.gpus)
        return _View(self.problem, table)

    def _priced(self, wait_power_w: Sequence[float]) -> _View:
        """The view with waits of each rank at these watts: energies are lowered, as if they were saved by seconds."""
        pipeline, power_w = self.problem.pipeline, self.problem.power_w
        more_w, in_all_w = dict[int, float](), 0.0
        for rank, (order, watts) in enumerate(zip(pipeline.schedule.orders, wait_power_w, strict=True)):
            more = 0.0 if math.isnan(watts) else watts - power_w
            in_all_w += more * pipeline.rank_gpus(rank)
            more_w.update({one.stage: more for one in order})
        profile = pipeline.profile
        points = {
            key: tuple(
                replace(point, energy_j=max(point.energy_j - more_w.get(key[0], 0.0) * point.time_s, 1e-9))
                for point in series
            )
            for key, series in profile.points.items()
        }
        priced = Problem.of(replace(pipeline, profile=replace(profile, points=points, blocking_power_w=power_w)))
        return _View(priced, OptionTable(priced.pipeline.profile, power_w, self._reserve, pipeline.gpus), in_all_w)

    def _draft(
        self,
        view: _View,
        granularity: Granularity,
        deadline_s: float,
        polish_s: float = 0.0,
        below_j: float = math.inf,
    ) -> Draft | None:
        graph, schedule = self.problem.graph, self.problem.pipeline.schedule
        members = self.runs if granularity == "instruction" else groups(graph, schedule, granularity)
        options = view.options(members)
        search = self._search(view, members, deadline_s)
        # A reserve is waited for in the program and not in a replay: that is how much lower a replay's energy may be.
        reserved = 1 + self._reserve
        if search and search.bound_j >= below_j * reserved:
            return None
        try:
            choices = self._choices(view, members, options, deadline_s, polish_s)
        except PlanningError:  # noise can leave a group without a clock as fast as default in every kind
            choices = None
        good = None if choices is None else self._repaired(granularity, members, options, choices, deadline_s)
        if not search:
            return good
        choices = search.choose(min(below_j, good.replay.energy_j if good else math.inf) * reserved)
        if choices is None:
            return good
        better = self._repaired(granularity, members, view.options(members, every=True), choices, deadline_s)
        return min(filter(None, (good, better)), key=lambda draft: draft.replay.energy_j, default=None)

    def _search(self, view: _View, members: Sequence[Sequence[int]], deadline_s: float) -> WholeClocks | None:
        """For clocks better than good ones, where groups are few; for runs of neighbours that takes too long."""
        options = view.options(members, every=True) if members is not self.runs else []
        if not 0 < sum(len(one.clocks_mhz) for one in options) <= _MOST_OPTIONS:
            return None
        at_least_s, idle_w = deadline_s if self.fixed else 0.0, view.problem.idle_w + view.more_wait_w
        try:
            return WholeClocks(self.problem.graph, members, options, idle_w, deadline_s, at_least_s)
        except (PlanningError, SolverError):  # what is good without it stays
            return None

    def _choices(
        self, view: _View, members: list[list[int]], options: list[Options], deadline_s: float, polish_s: float
    ) -> list[int] | None:
        graph, size = self.problem.graph, len(self.problem.graph.instructions)
        alone, apart = len(members) == size, size >= _LARGE and members is self.runs
        singles = self._exact[1]
        if view is self._view and (apart or (alone and view.table is self.problem.table)):
            solution = self.bound(deadline_s)
        else:
            # Large and shared: each instruction is solved alone, and takes part in its group when clocks are chosen.
            asked = view.problem.single if apart else members
            program, found = view.problem.program(asked, view.table, view.more_wait_w)
            singles = found if apart else singles
            solution = self._solve(program, deadline_s)
        period = _period_s(solution, deadline_s)
        if alone:
            how = replace(effort(size), budget_s=polish_s)
            return Rounder(graph, options, self._network).choose([period], [solution.extra_s], how)[0]
        if apart:
            least = [option.total_s[0] for option in singles]
            seconds = [time + extra for time, extra in zip(least, solution.extra_s, strict=True)]
            return choose(graph, members, options, period, rounded_alone(graph, members, options, seconds))
        return choose(graph, members, options, period, rounded(options, solution.extra_s))

    def _repaired(
        self,
        granularity: Granularity,
        members: list[list[int]],
        options: list[Options],
        choices: list[int],
        deadline_s: float,
    ) -> Draft | None:
        assignment = Assignment(self.problem, members, options, choices)
        replay = repair(assignment, deadline_s, lambda clocks: self._replay(clocks, deadline_s))
        if replay is None or replay.least_dwell_s < self._min_dwell_s * (1 - TOLERANCE):
            return None
        return self._calmed(Draft(granularity, assignment.clocks, replay), deadline_s)

    def _calmed(self, draft: Draft, deadline_s: float) -> Draft:
        """The draft with fewer switches, if there is one that costs no more energy and no more time."""
        pipeline = self.problem.pipeline
        clocks = tuple(
            calm(pipeline.profile, self.problem.power_w, order, row)
            for order, row in zip(pipeline.schedule.orders, draft.clocks, strict=True)
        )
        if clocks == draft.clocks:
            return draft
        replay = self._replay(clocks, deadline_s)
        least_s = draft.replay.least_dwell_s if self._lags else self._min_dwell_s
        dwells = replay.least_dwell_s >= least_s * (1 - TOLERANCE)
        in_time = replay.iteration_time_s <= deadline_s * (1 + TOLERANCE)
        cheap = replay.energy_j <= draft.replay.energy_j * (1 + TOLERANCE)
        fewer = replay.switches < draft.replay.switches
        return Draft(draft.granularity, clocks, replay) if dwells and in_time and cheap and fewer else draft

    def _replay(self, clocks: Clocks, deadline_s: float) -> Simulation:
        return self.referee.replay(clocks, self._lags, pace_s=deadline_s if self.fixed else None)

    def _solve(self, program: Program, deadline_s: float, after_s: float | None = None) -> Solution:
        return program.solve(deadline_s, deadline_s if self.fixed else 0.0, after_s)


def _period_s(solution: Solution, deadline_s: float) -> float:
    return min(deadline_s, solution.period_s + SOLVER_TOLERANCE_S)
