"""The order of instructions on each rank, and how it is written.

A schedule is data: one tuple of instructions per rank. Any order that a training framework executes can be given
(`recorded`); `orders` generates those that have a name. A rank may own several stages. What an instruction waits for
follows from its kind (`dependencies`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

from joulepath_planner.arguments import fits, quoted
from joulepath_planner.errors import ScheduleError
from joulepath_planner.inputs.instruction import FIXED, KINDS, Instruction

__all__ = ["Clocks", "Schedule", "recorded"]

Clocks: TypeAlias = Sequence[Sequence[int | None]]
"""Per rank, in its order, the clock of each instruction in MHz; None is the default clock."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """`orders[rank]` is what that rank executes in one iteration, in order.

    pairs: the forwards that are one action with the backward right behind them (written `F4+B1`). The two run one after
        the other, but what either sends to another rank leaves only when both have ended.

    Raises:
        ScheduleError: No pipeline can execute it.
    """

    orders: tuple[tuple[Instruction, ...], ...]
    name: str = "recorded"
    pairs: frozenset[Instruction] = frozenset()

    def __post_init__(self) -> None:
        owner: dict[int, int] = {}
        seen: set[Instruction] = set()
        if not fits(self.orders, tuple[Any, ...]) or not all(fits(order, tuple) for order in self.orders):
            raise ScheduleError(f"orders is {quoted(self.orders)}; give a tuple of instructions for each rank.")
        if not self.orders or not all(self.orders):
            raise ScheduleError("a schedule needs at least one rank, and each rank at least one instruction.")
        for rank, order in enumerate(self.orders):
            for instruction in order:
                if not _is_instruction(instruction):
                    raise ScheduleError(
                        f"rank {rank}: {quoted(instruction)} is no instruction, which is a stage and a microbatch from "
                        f"0 on, and a kind: {', '.join(KINDS)}."
                    )
                if instruction in seen:
                    raise ScheduleError(f"rank {rank}: {instruction.label} is there twice; an iteration runs it once.")
                if owner.setdefault(instruction.stage, rank) != rank:
                    raise ScheduleError(f"stage {instruction.stage} is on ranks {owner[instruction.stage]} and {rank}.")
                seen.add(instruction)
        if sorted(owner) != list(range(len(owner))):
            raise ScheduleError(f"the stages are {sorted(owner)}; they must be numbered from 0 without a gap.")
        forwards = [one for order in self.orders for one in order if one.kind == "F"]
        if idle := owner.keys() - {one.stage for one in forwards}:
            raise ScheduleError(f"stage {min(idle)} has no F; a stage runs at least one forward and its backward.")
        for forward in forwards:
            _check_backward(forward, seen)
        partner = self.partner
        for forward in self.pairs:
            if forward.kind != "F" or forward not in partner or partner[forward].kind not in ("B", "I"):
                raise ScheduleError(f"{forward.label} is no pair; a pair is an F and the B or I right behind it.")

    @property
    def stages(self) -> int:
        return len({instruction.stage for order in self.orders for instruction in order})

    @property
    def microbatches(self) -> int:
        return len({one.microbatch for order in self.orders for one in order if one.kind != FIXED})

    @property
    def rank_of(self) -> dict[int, int]:
        """The rank that owns each stage."""
        return {one.stage: rank for rank, order in enumerate(self.orders) for one in order}

    @property
    def partner(self) -> dict[Instruction, Instruction]:
        """The backward of each forward of a pair."""
        return {one: behind for order in self.orders for one, behind in pairwise(order) if one in self.pairs}

    def to_text(self) -> list[str]:
        """One line per rank, such as `F0 2:F0 F1+2:B0`; the stage is left out where it equals the rank."""
        return [
            "".join(
                (str(one) if one.stage == rank else one.label) + ("+" if one in self.pairs else " ") for one in order
            ).strip()
            for rank, order in enumerate(self.orders)
        ]


def recorded(orders: Sequence[str | Iterable[str | Instruction]]) -> Schedule:
    """A schedule as seen: per rank a text (`F0 F1 B0 B1`) or instructions; texts without a stage mean stage = rank.

    Raises:
        ScheduleError: It is written otherwise, or no pipeline can execute it.
    """
    if not fits(orders, Sequence[str | Iterable[str | Instruction]]):
        raise ScheduleError(f"orders is {quoted(orders)}; give a list with the order of each rank, such as 'F0 B0'.")
    read: list[tuple[Instruction, ...]] = []
    pairs: set[Instruction] = set()
    for rank, order in enumerate(orders):
        own: list[Instruction] = []
        for part in order.split() if isinstance(order, str) else order:
            ones = [Instruction.parse(text, rank) for text in part.split("+")] if isinstance(part, str) else [part]
            own += ones
            pairs.update(ones[:-1])
        read.append(tuple(own))
    return Schedule(tuple(read), pairs=frozenset(pairs))


def _is_instruction(one: object) -> bool:
    return (
        isinstance(one, Instruction)
        and one.kind in KINDS
        and isinstance(one.stage, int)
        and isinstance(one.microbatch, int)
        and one.stage >= 0
        and one.microbatch >= 0
    )


def _check_backward(forward: Instruction, seen: set[Instruction]) -> None:
    stage, microbatch = forward.stage, forward.microbatch
    found = [kind for kind in "BI" if Instruction(stage, kind, microbatch) in seen]
    if not found:
        raise ScheduleError(
            f"stage {stage} has no backward of microbatch {microbatch}; add its B{microbatch}, or its I{microbatch} "
            f"and W{microbatch}."
        )
    if len(found) > 1:
        raise ScheduleError(f"stage {stage} runs both B{microbatch} and I{microbatch}; keep B, or I and W.")
