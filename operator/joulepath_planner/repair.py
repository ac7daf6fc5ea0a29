"""Clocks given to groups, their replay by the referee, and what to raise when lags make it pass the deadline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from joulepath_planner.frontier import Problem
from joulepath_planner.lags import LagTable
from joulepath_planner.options import Options
from joulepath_planner.referee import Simulation, simulate
from joulepath_planner.schedule import Instruction

_MOST_ROUNDS = 60
TOLERANCE = 1e-9
"""Relative: what floating point may add to a deadline."""
_EAGERNESS = 1.15
"""Each round asks for this much more than the last, as what is raised on one path is often due on the next too."""


@dataclass(slots=True)
class Assignment:
    """The chosen option of each group; `clocks` is the same by rank, in order, with None for default clocks."""

    problem: Problem
    groups: list[list[int]]
    options: list[Options]
    choices: list[int]

    @classmethod
    def defaults(cls, problem: Problem) -> Assignment:
        return cls(problem, [], [], [])

    @property
    def clocks(self) -> tuple[tuple[int | None, ...], ...]:
        profile, instructions = self.problem.pipeline.profile, self.problem.graph.instructions
        chosen: dict[Instruction, int] = {}
        for group, option, choice in zip(self.groups, self.options, self.choices, strict=True):
            chosen.update({instructions[node]: option.clocks_mhz[choice] for node in group})
        return tuple(
            tuple(
                None if chosen.get(one, top := profile.default_clock_mhz(one.stage)) == top else chosen[one]
                for one in order
            )
            for order in self.problem.pipeline.schedule.orders
        )

    def replay(self, lags: LagTable | None) -> Simulation:
        return simulate(self.problem.pipeline, self.clocks, lags)


def repair(assignment: Assignment, deadline_s: float, lags: LagTable | None) -> Simulation | None:
    """Raise clocks until the replay meets the deadline; returns that replay, or None if it can't be had so.

    Each round looks at the critical path of the replay only. First it raises what runs before an instruction that
    began before its raised clock was in force; where there is none, slowed instructions of the path themselves.
    """
    for tries in range(_MOST_ROUNDS):
        replay = assignment.replay(lags)
        over_s = replay.iteration_time_s - deadline_s
        if over_s <= deadline_s * TOLERANCE:
            return replay
        wanted_s = over_s * _EAGERNESS**tries
        if not (_raise_before_late(assignment, replay, wanted_s) or _raise_slowed(assignment, replay, wanted_s)):
            return None
    return None


def _raise_before_late(assignment: Assignment, replay: Simulation, over_s: float) -> bool:
    """Give the rank's previous instruction a clock as high as that of one that lost time to a late raise."""
    profile = assignment.problem.pipeline.profile
    group_of = _group_of(assignment)
    critical = set(replay.critical_path)
    losses = []
    for events, clocks in zip(replay.ranks, assignment.clocks, strict=True):
        for index, (event, clock) in enumerate(zip(events, clocks, strict=True)):
            one = event.instruction
            wanted = clock or profile.default_clock_mhz(one.stage)
            lost = event.duration_s - profile.at(one.stage, one.kind, wanted)[0]
            if one in critical and lost > 1e-9:
                losses.append((lost, group_of[events[index - 1].instruction], wanted))
    gained, changed = 0.0, False
    for lost, group, wanted in sorted(losses, reverse=True):
        if gained > over_s:
            break
        clocks_mhz = assignment.options[group].clocks_mhz
        here = assignment.choices[group]
        higher = [choice for choice in range(here) if clocks_mhz[choice] >= wanted]
        if here and clocks_mhz[here] < wanted:
            assignment.choices[group] = max(higher, default=0)
            gained += lost
            changed = True
    return changed


def _raise_slowed(assignment: Assignment, replay: Simulation, over_s: float) -> bool:
    """Raise groups of the critical path by one option each, cheapest joules per second first."""
    group_of = _group_of(assignment)
    on_path: dict[int, int] = {}
    for one in replay.critical_path:
        if one in group_of:
            on_path[group_of[one]] = on_path.get(group_of[one], 0) + 1
    prices = []
    for group, count in on_path.items():
        option, here = assignment.options[group], assignment.choices[group]
        if here:
            seconds = option.total_s[here] - option.total_s[here - 1]
            joules = option.effective_j[here - 1] - option.effective_j[here]
            share = count / len(assignment.groups[group])
            prices.append((joules / (seconds * share), group, seconds * share))
    gained = 0.0
    for _, group, seconds in sorted(prices):
        if gained > over_s:
            break
        assignment.choices[group] -= 1
        gained += seconds
    return bool(prices)


def _group_of(assignment: Assignment) -> dict[Instruction, int]:
    instructions: Sequence[Instruction] = assignment.problem.graph.instructions
    return {instructions[node]: index for index, group in enumerate(assignment.groups) for node in group}
