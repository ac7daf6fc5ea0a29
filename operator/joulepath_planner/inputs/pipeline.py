"""A pipeline as the planner and the referee see it: schedule, profile, and what the clocks don't change.

Iterations follow back to back. A rank begins its next iteration when it has executed its order and its tail
(gradient reduction and optimizer, at default clocks); nothing else joins two iterations. The *iteration time*
is the period of that steady state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from joulepath_planner.arguments import LONGEST_S, check_fields, quoted
from joulepath_planner.errors import ArgumentError, ProfileError
from joulepath_planner.inputs.instruction import Instruction, StageKind, kind_name
from joulepath_planner.inputs.profile import Profile
from joulepath_planner.inputs.schedule import Schedule

__all__ = ["Link", "Pipeline"]

Link: TypeAlias = tuple[int, int, str]
"""Stage that sends, stage that receives, and the kind that is sent: `F` activations, `B` or `I` gradients."""


_MOST_GPUS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Schedule and profile, with the times that no clock changes (all in seconds, all waits at blocking power).

    transfer_s: delay of a link. Between two stages of one rank nothing travels: such links are left out.
    overhead_s: host gap between an instruction of a (stage, kind) and the one before it on its rank. A rank that waits
        has it behind it: what it waits for costs the link's delay alone.
    tail_s: R and O of each stage, at default clocks; tails of up to four p95 lags take the clock that the next
        iteration begins with.
    gap_s: host gaps of single instructions, in place of that of their kind: a gather, or a reduction, before them.
    extra_s: what single instructions do beyond those of their kind, such as a reduction at the end of the last
        backward. They end that much later, at whatever clock, and what they made leaves then.

    Raises:
        ProfileError: The profile has not all that the schedule runs, or stages of one rank differ in default clock.
        ArgumentError: A delay is no time, a link is none, or GPUs are counted for no stage.
    """

    schedule: Schedule
    profile: Profile
    transfer_s: Mapping[Link, float] = field(default_factory=dict)
    overhead_s: Mapping[StageKind, float] | None = None
    tail_s: Mapping[int, float] = field(default_factory=dict)
    gpus: Mapping[int, int] = field(default_factory=dict)
    gap_s: Mapping[Instruction, float] = field(default_factory=dict)
    extra_s: Mapping[Instruction, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        measured = set(self.profile.stages)
        for order in self.schedule.orders:
            for one in order:
                if one.stage not in measured:
                    raise ProfileError(
                        f"the schedule runs {one.label}, but the profile has only stages "
                        f"{', '.join(map(str, self.profile.stages))}; they are counted from 0. Correct their numbers, "
                        "plan for fewer stages, or measure the missing one."
                    )
                if (one.stage, one.kind) not in self.profile.points:
                    raise ProfileError(
                        f"the schedule runs {one.label}, but the profile has no {one.kind} ({kind_name(one.kind)}) of "
                        f"that stage; measure it{' (I and W are the parts of B)' if one.kind in 'IW' else ''}."
                    )
            defaults = {stage: self.profile.default_clock_mhz(stage) for stage in {one.stage for one in order}}
            if len(set(defaults.values())) > 1:
                listed = ", ".join(f"stage {stage} {clock} MHz" for stage, clock in sorted(defaults.items()))
                raise ProfileError(f"the stages of one rank end at different clocks ({listed}); they share a GPU.")
        for name, delays in (
            ("transfer_s", self.transfer_s),
            ("overhead_s", self.overhead_s),
            ("tail_s", self.tail_s),
            ("gap_s", self.gap_s),
            ("extra_s", self.extra_s),
        ):
            for key, value in (delays or {}).items():
                if not 0 <= value <= LONGEST_S:
                    raise ArgumentError(
                        f"{name}[{key}] is {quoted(value)}; it must be a number of seconds, 0 or more and up to a day."
                    )

        for stage in self.tail_s:
            if stage not in range(self.schedule.stages):
                raise ArgumentError(f"tail_s[{stage}]: the schedule has no stage {stage}; name stages that it runs.")
        self._check_links()
        self._check_gpus()
        self._check_instructions()

    @property
    def ranks(self) -> int:
        return len(self.schedule.orders)

    @property
    def gpu_count(self) -> int:
        """All GPUs of the pipeline."""
        return sum(self.rank_gpus(rank) for rank in range(self.ranks))

    def overhead(self, stage: int, kind: str) -> float:
        return (self.overhead_s or {}).get((stage, kind), 0.0)

    def gap(self, one: Instruction) -> float:
        """Seconds between an instruction and the one before it on its rank: its own, or those of its kind."""
        own = self.gap_s.get(one)
        return self.overhead(one.stage, one.kind) if own is None else own

    def extra(self, one: Instruction) -> float:
        return self.extra_s.get(one, 0.0)

    def rank_gpus(self, rank: int) -> int:
        """How many GPUs a rank stands for: those of each of its stages."""
        return self.gpus.get(self.schedule.orders[rank][0].stage, 1)

    def rank_tail_s(self, rank: int) -> float | None:
        """Seconds of a rank's R and O: the sum over its stages; None where none is named."""
        stages = {one.stage for one in self.schedule.orders[rank]}
        tails = [self.tail_s[stage] for stage in stages if stage in self.tail_s]
        return sum(tails) if tails else None

    def capped(self, default_clock_mhz: int | None) -> Pipeline:
        """The same pipeline on GPUs whose own cap is this clock."""
        return self if default_clock_mhz is None else replace(self, profile=self.profile.capped(default_clock_mhz))

    def running(self, schedule: Schedule) -> Pipeline:
        """The same pipeline where it runs another schedule, some of its instructions."""
        runs = {one for order in schedule.orders for one in order}
        gap_s, extra_s = (
            {one: seconds for one, seconds in own.items() if one in runs} for own in (self.gap_s, self.extra_s)
        )
        return replace(self, schedule=schedule, gap_s=gap_s, extra_s=extra_s)

    def _check_links(self) -> None:
        rank_of = self.schedule.rank_of
        for source, target, kind in self.transfer_s:
            step = 1 if kind == "F" else -1
            if kind not in ("F", "B", "I") or target != source + step or source not in rank_of or target not in rank_of:
                raise ArgumentError(
                    f"transfer_s[{source}, {target}, {kind!r}] is no edge; activations go from a stage to the next as "
                    "F, gradients to the one before as B or I."
                )
        travelling = {link: delay for link, delay in self.transfer_s.items() if rank_of[link[0]] != rank_of[link[1]]}
        object.__setattr__(self, "transfer_s", travelling)

    def _check_gpus(self) -> None:
        for stage, count in self.gpus.items():
            if stage not in range(self.schedule.stages):
                raise ArgumentError(f"gpus[{stage}]: the schedule has no stage {stage}; name stages that it runs.")
            if not 1 <= count <= _MOST_GPUS:
                raise ArgumentError(
                    f"gpus[{stage}] is {quoted(count)}; a stage runs on at least 1 GPU, and up to {_MOST_GPUS}."
                )
        for rank, order in enumerate(self.schedule.orders):
            counts = {one.stage: self.gpus.get(one.stage, 1) for one in order}
            if len(set(counts.values())) > 1:
                listed = ", ".join(f"stage {stage} {count}" for stage, count in sorted(counts.items()))
                raise ArgumentError(
                    f"the stages of rank {rank} run on different numbers of GPUs ({listed}); give them the same."
                )

    def _check_instructions(self) -> None:
        runs = {one for order in self.schedule.orders for one in order} if self.gap_s or self.extra_s else set()
        for name, own in (("gap_s", self.gap_s), ("extra_s", self.extra_s)):
            for one in own:
                if one not in runs:
                    raise ArgumentError(f"{name}[{one.label}]: the schedule doesn't run it; name what it runs.")
