"""Why an instruction got its clock: what it could not do without, and what the clocks beside it would have cost.

The referee answers: it replays the plan with this one instruction at the next clock down, then at the next one up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from joulepath_planner.arguments import checked
from joulepath_planner.errors import ScheduleError
from joulepath_planner.graph.groups import phases
from joulepath_planner.inputs.instruction import Instruction
from joulepath_planner.inputs.lags import LagTable
from joulepath_planner.inputs.pipeline import Pipeline
from joulepath_planner.plan import Plan
from joulepath_planner.referee.replay import Event, Referee, Simulation

__all__ = ["NO_SLACK_S", "Explainer", "Explanation", "Neighbour", "Saving"]

_PARTS: Final[tuple[Literal["warm-up", "steady", "cool-down"], ...]] = ("warm-up", "steady", "cool-down")
NO_SLACK_S: Final = 1e-6
_SAME_J: Final = 1e-6
_TOLERANCE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The plan with this instruction alone at another clock: what changes, per iteration, by the referee."""

    clock_mhz: int
    energy_change_j: float
    time_change_s: float
    late_s: float
    """By how much the iteration would then miss the plan's deadline; 0 where it keeps it."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One instruction of a plan.

    critical: on the path that makes the iteration as long as it is; before, after: its neighbours on that path.
    slack_s: how much later it may end without delaying the iterations after it.
    own_j: joules of all its GPUs, waits not counted; slower, faster: None at the end of the profile's clocks.
    """

    instruction: Instruction
    rank: int
    clock_mhz: int
    default_clock_mhz: int
    start_s: float
    duration_s: float
    own_j: float
    granularity: str
    critical: bool
    before: Instruction | None
    after: Instruction | None
    slack_s: float
    slower: Neighbour | None
    faster: Neighbour | None

    @property
    def reason(self) -> str:
        """Why it isn't slower: critical, no slack, too little slack, cheapest, lowest clock or shared clock."""
        if self.slower is None:
            return "lowest clock"
        if self.critical or self.slack_s < NO_SLACK_S:
            return "critical" if self.critical else "no slack"
        if self.slower.late_s > 0:
            return "too little slack"
        if self.slower.energy_change_j >= -_SAME_J:
            return "cheapest"
        return "shared clock"

    @property
    def sentences(self) -> tuple[str, ...]:
        """The same for people."""
        one = self.instruction
        clock = (
            f"the default clock, {self.clock_mhz} MHz"
            if self.clock_mhz == self.default_clock_mhz
            else f"{self.clock_mhz} MHz (default {self.default_clock_mhz} MHz)"
        )
        told = [
            f"{one.label} on rank {self.rank} runs at {clock}: {_ms(self.duration_s)} and {self.own_j:.2f} J, "
            f"from {self.start_s:.4f} s.",
            self._why(),
        ]
        if self.slower is not None:
            told.append(f"The next clock down, {self.slower.clock_mhz} MHz, would {self._cost(self.slower)}.")
        if self.faster is not None:
            told.append(f"The next clock up, {self.faster.clock_mhz} MHz, would {self._cost(self.faster)}.")
        return tuple(told)

    def _why(self) -> str:
        if self.critical:
            places = [f"after {self.before.label}"] if self.before else []
            places += [f"before {self.after.label}"] if self.after else []
            return f"It is on the critical path{', ' * bool(places)}{' and '.join(places)}: it has no slack."
        if self.slack_s < NO_SLACK_S:
            return "It has no slack: a path through it is as long as the critical one."
        shared = f"; it shares its clock with others ({self.granularity} granularity)"
        because = {
            "lowest clock": "; the profile has no lower clock",
            "too little slack": ", too little for the next clock down",
            "cheapest": "; a lower clock saves nothing more",
            "shared clock": shared if self.granularity != "instruction" else "; lags, reserve or rounding left that",
        }[self.reason]
        return f"It is off the critical path and may end {_ms(self.slack_s)} later{because}."

    @staticmethod
    def _cost(other: Neighbour) -> str:
        joules = other.energy_change_j
        energy = f"{'save' if joules < 0 else 'cost'} {abs(joules):.3g} J"
        if abs(joules) < _SAME_J:
            energy = "change no energy"
        if abs(other.time_change_s) < NO_SLACK_S:
            return f"{energy} and leave the iteration time as it is"
        longer = "lengthen" if other.time_change_s > 0 else "shorten"
        miss = " and miss the deadline" if other.late_s > NO_SLACK_S else ""
        return f"{energy}, {longer} the iteration by {_ms(abs(other.time_change_s))}{miss}"


@dataclass(frozen=True, slots=True)
class Saving:
    """What one part of an iteration costs at default clocks and with the plan, in joules of all its GPUs.

    part: what the instructions of a stage cost in the warm-up, the steady state or the cool-down (`Granularity`), or
        what a rank's waits cost, its tail among them. A rank's waits are told with the first of its stages.
    """

    rank: int
    stage: int
    part: Literal["warm-up", "steady", "cool-down", "waits"]
    default_j: float
    plan_j: float

    @property
    def saved_j(self) -> float:
        return self.default_j - self.plan_j


class Explainer:
    """Explains instructions of one plan; replays the plan once, then two times for each instruction asked for.

    pace_s: the iteration time of the straggler that the plan waits for, if it does.
    """

    @checked
    def __init__(
        self, pipeline: Pipeline, plan: Plan, lags: LagTable | None = None, pace_s: float | None = None
    ) -> None:
        self._pipeline, self._plan, self._lags, self._pace_s = pipeline, plan, lags, pace_s
        self._referee = Referee(pipeline)
        self.replay: Simulation = self._referee.replay(plan.clocks, lags, pace_s=pace_s)
        self._place = {
            event.instruction: (rank, index)
            for rank, events in enumerate(self.replay.ranks)
            for index, event in enumerate(events)
        }

    @checked
    def explain(self, instruction: Instruction) -> Explanation:
        """What the referee says of one instruction.

        Raises:
            ScheduleError: The schedule doesn't run it.
        """
        if instruction not in self._place:
            raise ScheduleError(
                f"the schedule runs no {instruction.label}; instructions are written as stage:kind and microbatch, "
                f"such as {next(iter(self._place)).label}."
            )
        rank, index = self._place[instruction]
        event = self.replay.ranks[rank][index]
        profile = self._pipeline.profile
        default = profile.default_clock_mhz(instruction.stage)
        clock = self._plan.clocks[rank][index] or default
        clocks = sorted(point.clock_mhz for point in profile.points[instruction.stage, instruction.kind])
        path = list(self.replay.critical_path)
        # The longest path through a plan that waits for a straggler delays nothing if it ends before.
        delays = self._pace_s is None or event.slack_s < NO_SLACK_S
        at = path.index(instruction) if delays and instruction in path else None
        return Explanation(
            instruction=instruction,
            rank=rank,
            clock_mhz=clock,
            default_clock_mhz=default,
            start_s=event.start_s,
            duration_s=event.duration_s,
            own_j=event.energy_j,
            granularity=self._plan.granularity,
            critical=at is not None,
            before=path[at - 1] if at else None,
            after=path[at + 1] if at is not None and at + 1 < len(path) else None,
            slack_s=event.slack_s,
            slower=self._neighbour(rank, index, max((one for one in clocks if one < clock), default=None)),
            faster=self._neighbour(rank, index, min((one for one in clocks if one > clock), default=None)),
        )

    def savings(self) -> tuple[Saving, ...]:
        """What is saved by stage and phase; all parts together are what the plan saves."""
        default, found = self._referee.replay(pace_s=self._pace_s), []
        for rank, order in enumerate(self._pipeline.schedule.orders):
            phase = dict(zip(order, phases(order), strict=True))
            sums: tuple[defaultdict[tuple[int, int], float], ...] = defaultdict(float), defaultdict(float)
            for summed, seen in zip(sums, (default, self.replay), strict=True):
                for event in seen.ranks[rank]:
                    summed[event.instruction.stage, phase[event.instruction]] += event.energy_j
            before, after = sums
            found += [
                Saving(rank, stage, _PARTS[where], before[stage, where], after[stage, where])
                for stage, where in sorted(before)
            ]
            # Whatever isn't computing: exact also where iterations repeat only after several.
            waits = [
                seen.energy[rank].total_j - sum(summed.values())
                for summed, seen in zip(sums, (default, self.replay), strict=True)
            ]
            found.append(Saving(rank, min(one.stage for one in order), "waits", *waits))
        return tuple(found)

    @checked
    def costliest(self, most: int) -> tuple[Instruction, ...]:
        """The instruction of most joules of each (stage, kind), the costliest `most` of those."""
        found: dict[tuple[int, str], Event] = {}
        for events in self.replay.ranks:
            for event in events:
                key = event.instruction.stage, event.instruction.kind
                if key not in found or event.energy_j > found[key].energy_j:
                    found[key] = event
        ranked: Sequence[Event] = sorted(found.values(), key=lambda event: (-event.energy_j, event.instruction))
        return tuple(event.instruction for event in ranked[:most])

    def _neighbour(self, rank: int, index: int, clock: int | None) -> Neighbour | None:
        if clock is None:
            return None
        rows: list[Sequence[int | None]] = list(self._plan.clocks)
        rows[rank] = [*rows[rank][:index], clock, *rows[rank][index + 1 :]]
        seen = self._referee.replay(rows, self._lags, pace_s=self._pace_s)
        over_s = seen.iteration_time_s - self._plan.deadline_s
        return Neighbour(
            clock_mhz=clock,
            energy_change_j=seen.energy_j - self.replay.energy_j,
            time_change_s=seen.iteration_time_s - self.replay.iteration_time_s,
            late_s=over_s if over_s > self._plan.deadline_s * _TOLERANCE else 0.0,
        )


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3f} ms"
