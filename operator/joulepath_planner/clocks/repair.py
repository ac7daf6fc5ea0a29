"""Clocks given to groups, and what to raise when lags make their replay pass the deadline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from joulepath_planner.bound.problem import Problem
from joulepath_planner.graph.options import Options
from joulepath_planner.inputs.instruction import Instruction
from joulepath_planner.inputs.schedule import Clocks

__all__ = ["TOLERANCE", "Assignment", "Ran", "Replay", "repair"]

_MOST_ROUNDS: Final = 60
TOLERANCE: Final = 1e-9
"""Relative: what floating point may add to a deadline."""
_EAGERNESS: Final = 1.15
"""Each round asks for this much more than the last, as what is raised on one path is often due on the next too."""


class Ran(Protocol):
    """One instruction as a replay ran it."""

    @property
    def instruction(self) -> Instruction: ...
    @property
    def duration_s(self) -> float: ...


class Replay(Protocol):
    """What is looked at of a replay; who replays is not known here."""

    @property
    def iteration_time_s(self) -> float: ...
    @property
    def critical_path(self) -> Sequence[Instruction]: ...
    @property
    def ranks(self) -> Sequence[Sequence[Ran]]: ...


_AnyReplay = TypeVar("_AnyReplay", bound=Replay)


class Assignment:
    """The chosen option of each group. What is fixed takes the clock of what follows it on its rank."""

    def __init__(
        self, problem: Problem, groups: Sequence[Sequence[int]], options: Sequence[Options], choices: Sequence[int]
    ) -> None:
        self.problem, self.groups, self.options, self.choices = problem, groups, options, list(choices)
        self.group_of = [0] * len(problem.graph.instructions)
        for index, group in enumerate(groups):
            for node in group:
                self.group_of[node] = index
        self._of_rank: list[list[int]] = [[] for _ in problem.pipeline.schedule.orders]
        for node, rank in enumerate(problem.graph.rank):  # topological, hence in the rank's order
            self._of_rank[rank].append(node)
        self.node = {one: node for node, one in enumerate(problem.graph.instructions)}
        profile = problem.pipeline.profile
        self._giver = self._givers() if profile.fixed else {}
        self.default_mhz = [profile.default_clock_mhz(order[0].stage) for order in problem.pipeline.schedule.orders]

    def clock_mhz(self, node: int) -> int:
        group = self.group_of[self._giver.get(node, node)]
        return self.options[group].clocks_mhz[self.choices[group]]

    def _givers(self) -> dict[int, int]:
        """For each fixed node the next one of its rank that asks for a clock, if need be in the next iteration."""
        is_fixed = self.problem.pipeline.profile.is_fixed
        givers: dict[int, int] = {}
        for nodes in self._of_rank:
            instructions = [self.problem.graph.instructions[node] for node in nodes]
            asking = [node for node, one in zip(nodes, instructions, strict=True) if not is_fixed(one.stage, one.kind)]
            giver = asking[0] if asking else nodes[0]
            for node in reversed(nodes):
                if asking and node == asking[-1]:
                    giver = asking.pop()
                else:
                    givers[node] = giver
        return givers

    @property
    def clocks(self) -> Clocks:
        """By rank, in order, with None for default clocks."""
        return tuple(
            tuple(None if (clock := self.clock_mhz(node)) == default else clock for node in nodes)
            for nodes, default in zip(self._of_rank, self.default_mhz, strict=True)
        )


def repair(assignment: Assignment, deadline_s: float, replay_of: Callable[[Clocks], _AnyReplay]) -> _AnyReplay | None:
    """Raise clocks until the replay meets the deadline; returns that replay, or None if it can't be had so.

    Each round looks at the critical path of the replay only. First it raises what runs before an instruction that
    began before its raised clock was in force; where there is none, slowed instructions of the path themselves.
    """
    for tries in range(_MOST_ROUNDS):
        replay = replay_of(assignment.clocks)
        over_s = replay.iteration_time_s - deadline_s
        if over_s <= deadline_s * TOLERANCE:
            return replay
        wanted_s = over_s * _EAGERNESS**tries
        if not (_raise_before_late(assignment, replay, wanted_s) or _raise_slowed(assignment, replay, wanted_s)):
            return None
    return None


def _raise_before_late(assignment: Assignment, replay: Replay, over_s: float) -> bool:
    """Give the rank's previous instruction a clock as high as that of one that lost time to a late raise."""
    profile = assignment.problem.pipeline.profile
    critical = set(replay.critical_path)
    losses = []
    for events in replay.ranks:
        for index, event in enumerate(events):
            one = event.instruction
            if one in critical:
                wanted = assignment.clock_mhz(assignment.node[one])
                lost = event.duration_s - profile.at(one.stage, one.kind, wanted)[0]
                if lost > 1e-9:
                    before = assignment.node[events[index - 1].instruction]
                    losses.append((lost, assignment.group_of[before], wanted))
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


def _raise_slowed(assignment: Assignment, replay: Replay, over_s: float) -> bool:
    """Raise groups of the critical path by one option each, cheapest joules per second first."""
    on_path: dict[int, int] = {}
    for one in replay.critical_path:
        group = assignment.group_of[assignment.node[one]]
        on_path[group] = on_path.get(group, 0) + 1
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
