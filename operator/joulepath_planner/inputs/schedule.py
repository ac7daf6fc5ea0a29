"""The order of instructions on each rank, and how it is written.

A schedule is data: one tuple of instructions per rank. Any order that a training framework executes can be given
(`recorded`); `orders` generates those that have a name. A rank may own several stages. What an instruction waits for
follows from its kind (`dependencies`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from joulepath_planner.arguments import fits, quoted
from joulepath_planner.errors import ScheduleError
from joulepath_planner.inputs.instruction import FIXED, KINDS, Instruction, is_pair

__all__ = ["Clocks", "Schedule", "recorded"]

Clocks: TypeAlias = Sequence[Sequence[int | None]]
"""Per rank, in its order, the clock of each instruction in MHz; None is the default clock."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """`orders[rank]` is what that rank executes in one iteration, in order.

    What an instruction made leaves for another rank when it ends, and what it takes from one is awaited right before it
    begins, unless it is named here:

    sent_after: the later instruction of the same rank at whose end it leaves (written `F4 B1 >F4`, or `F4+B1`).
    awaited_before: the sooner instruction of the same rank that doesn't begin before it has come (written `<B1 F4 B1`).
    held: what the rank itself waits for to be taken, which is once the other rank does nothing but await it, before it
        goes on (written `F4 >>F4 B1`).

    Raises:
        ScheduleError: No pipeline can execute it.
    """

    orders: tuple[tuple[Instruction, ...], ...]
    name: str = "recorded"
    sent_after: Mapping[Instruction, Instruction] = field(default_factory=dict)
    awaited_before: Mapping[Instruction, Instruction] = field(default_factory=dict)
    held: frozenset[Instruction] = frozenset()

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
                        f"0 on, and a kind: {', '.join(KINDS)}, or F&7:B."
                    )
                for half in instruction.halves:
                    if half in seen:
                        raise ScheduleError(f"rank {rank}: {half.label} is there twice; an iteration runs it once.")
                    if owner.setdefault(half.stage, rank) != rank:
                        raise ScheduleError(f"stage {half.stage} is on ranks {owner[half.stage]} and {rank}.")
                    seen.add(half)
        if sorted(owner) != list(range(len(owner))):
            raise ScheduleError(f"the stages are {sorted(owner)}; they must be numbered from 0 without a gap.")
        forwards = [one for one in seen if one.kind == "F"]
        if idle := owner.keys() - {one.stage for one in forwards}:
            raise ScheduleError(f"stage {min(idle)} has no F; a stage runs at least one forward and its backward.")
        for forward in sorted(forwards):
            _check_backward(forward, seen)
        self._check_messages()

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

    def to_text(self) -> list[str]:
        """One line per rank, such as `F0 2:F0 <2:B0 F1 2:B0 >F1`; the stage is left out where it equals the rank."""
        before, behind = defaultdict[Instruction, list[str]](list), defaultdict[Instruction, list[str]](list)
        rank_of = self.rank_of

        def word(one: Instruction) -> str:
            return str(one) if one.stage == rank_of[one.stage] else one.label

        for one, at in self.awaited_before.items():
            before[at].append("<" + word(one))
        for one, at in {**{one: one for one in self.held}, **self.sent_after}.items():
            behind[at].append((">>" if one in self.held else ">") + word(one))
        return [
            " ".join(text for one in order for text in (*before[one], word(one), *behind[one])) for order in self.orders
        ]

    def _check_messages(self) -> None:
        place = {one: (rank, at) for rank, order in enumerate(self.orders) for at, one in enumerate(order)}
        for name, moved in (("sent_after", self.sent_after), ("awaited_before", self.awaited_before)):
            if not fits(moved, Mapping[Instruction, Instruction]):
                raise ScheduleError(f"{name} is {quoted(moved)}; give a dict from instructions to instructions.")
        if not fits(self.held, frozenset[Instruction]):
            raise ScheduleError(f"held is {quoted(self.held)}; give a frozenset of instructions.")
        for mark, one, at in (
            *((">", *item) for item in self.sent_after.items()),
            *(("<", *item) for item in self.awaited_before.items()),
            *((">>", one, one) for one in self.held),
        ):
            if one not in place or at not in place or place[one][0] != place[at][0]:
                raise ScheduleError(
                    f"{mark}{one.label}: its rank doesn't run {one.label}; move it to the one that does."
                )
            if mark == ">" and place[at] < place[one]:
                raise ScheduleError(
                    f">{one.label} stands before {one.label}; what it made leaves when it ends, or later."
                )
            if mark == "<" and place[at] > place[one]:
                raise ScheduleError(f"<{one.label} stands behind {one.label}; what it takes is there when it begins.")


def recorded(orders: Sequence[str | Iterable[str | Instruction]]) -> Schedule:
    """A schedule as seen: per rank a text (`F0 F1 B0 B1`) or instructions; texts without a stage mean stage = rank.

    Raises:
        ScheduleError: It is written otherwise, or no pipeline can execute it.
    """
    if not fits(orders, Sequence[str | Iterable[str | Instruction]]):
        raise ScheduleError(f"orders is {quoted(orders)}; give a list with the order of each rank, such as 'F0 B0'.")
    read: list[tuple[Instruction, ...]] = []
    sent, awaited = list[tuple[Instruction, Instruction]](), list[tuple[Instruction, Instruction]]()
    held: set[Instruction] = set()
    for rank, order in enumerate(orders):
        own, early = list[Instruction](), list[Instruction]()
        for part in order.split() if isinstance(order, str) else order:
            if isinstance(part, str) and part[:1] == "<":
                early.append(Instruction.parse(part[1:], rank))
            elif isinstance(part, str) and part[:1] == ">" and own:
                holds = part.startswith(">>")
                sent.append((Instruction.parse(part[1 + holds :], rank), own[-1]))
                held.update([sent[-1][0]] * holds)
            else:
                ones = [Instruction.parse(text, rank) for text in part.split("+")] if isinstance(part, str) else [part]
                own += ones
                awaited += [(one, ones[0]) for one in early]
                sent += [(one, ones[-1]) for one in ones[:-1]]
                early.clear()
        if early:
            raise ScheduleError(
                f"rank {rank}: nothing stands behind <{early[0].label}; what it takes is awaited there."
            )
        read.append(tuple(own))
    for mark, moved in ((">", sent), ("<", awaited)):
        for one, count in Counter(one for one, _ in moved).items():
            if count > 1:
                raise ScheduleError(f"{mark}{one.label} is there twice; keep the one where it happens.")
    return Schedule(
        tuple(read),
        sent_after={one: at for one, at in sent if one != at},
        awaited_before={one: at for one, at in awaited if one != at},
        held=frozenset(held),
    )


def _is_instruction(one: object) -> bool:
    return (
        isinstance(one, Instruction)
        and (one.kind in KINDS or is_pair(one.kind))
        and all(isinstance(number, int) and number >= 0 for number in (one.stage, one.microbatch, one.back))
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
