"""Tensor-parallel peers of a stage on one node: their GPUs switch together.

They run each instruction in step, and all are as fast as the slowest of them. A clock that is too low on one costs all
of them time, one that is too high costs joules on it: the first peer that wants a higher clock raises all, the last one
that wants a lower clock lowers all. A peer that falls behind the others holds them for a moment only, since it may be
silent for good. No rank's clock is ever below what it wants itself. Pure; times are the monotonic clock's.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from joulepath_clocks.gpus.wish import Wish, height

__all__ = ["PATIENCE_S", "Group", "Member", "joint"]

PATIENCE_S: Final = 0.25
"""For so long a peer that is behind the others keeps their clocks up."""

Position = tuple[int, int]
"""The iteration that a rank is at, and how many markers of it."""


@dataclass(slots=True, eq=False)
class Member:
    """One rank of a group. `order` is given what its GPU is to do, and says whether that was taken."""

    order: Callable[[Wish], bool]
    wish: Wish | None = None
    """What it wants itself; None while it wants nothing."""
    position: Position = (-1, 0)
    behind_since_s: float = math.inf
    ordered: Wish | None = None
    """What its GPU does; None where it has to be told."""


def joint(wishes: Collection[Wish], now_s: float) -> Wish:
    """The wish that is, at any time, as high as the highest of these; of later ones, the highest at the soonest time.

    wishes: at least one.
    """
    now_mhz = max((_at(wish, now_s) for wish in wishes), key=height)
    raises = [
        (wish.later_at_s, wish.later_mhz)
        for wish in wishes
        if wish.later_mhz is not None and wish.later_at_s > now_s and height(wish.later_mhz) > height(now_mhz)
    ]
    measure = all(wish.measure for wish in wishes)
    if not raises:
        return Wish(now_mhz, measure=measure)
    return Wish(now_mhz, max((mhz for _, mhz in raises), key=height), min(at_s for at_s, _ in raises), measure)


def _at(wish: Wish, now_s: float) -> int:
    return wish.later_mhz if wish.later_mhz is not None and wish.later_at_s <= now_s else wish.now_mhz


class Group:
    """The ranks of one stage of one replica on this node. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._members: list[Member] = []
        self.due_s = math.inf
        """When the patience with a member that is behind ends."""

    @property
    def shared(self) -> bool:
        """Whether it has more than one member that wants a clock."""
        return len(self._members) > 1

    def wish(self, member: Member, wish: Wish, position: Position, now_s: float) -> None:
        """A member wants a clock, at a position that it has come to."""
        with self._lock:
            if member.wish is None:
                self._members.append(member)
            member.wish, member.position = wish, position
            if len(self._members) == 1:
                member.behind_since_s = self.due_s = math.inf
                self._tell(member, wish)
                return
            member.ordered = None
            leads = not any(other.position > position for other in self._members)
            member.behind_since_s = math.inf if leads else now_s
            for other in self._members:
                if other.position < position:
                    other.behind_since_s = min(other.behind_since_s, now_s)
            self._order(now_s)

    def leave(self, member: Member, now_s: float) -> None:
        """A member wants nothing more: its clock is being reset, and it holds nobody."""
        with self._lock:
            if member.wish is None:
                return
            member.wish = member.ordered = None
            self._members.remove(member)
            self._order(now_s)

    def look(self, now_s: float) -> None:
        """Loses patience with whom is behind for too long; to be called once `due_s` is over."""
        with self._lock:
            self._order(now_s)

    def _order(self, now_s: float) -> None:
        ends_s = [member.behind_since_s + PATIENCE_S for member in self._members]
        self.due_s = min((end_s for end_s in ends_s if end_s > now_s), default=math.inf)
        heeded = [member.wish for member, end_s in zip(self._members, ends_s, strict=True) if end_s > now_s]
        for member in self._members:
            wanted = [one for one in (*heeded, member.wish) if one is not None]
            wish = wanted[0] if len(self._members) == 1 else joint(wanted, now_s)
            self._tell(member, wish)

    @staticmethod
    def _tell(member: Member, wish: Wish) -> None:
        if wish != member.ordered:
            member.ordered = wish if member.order(wish) else None
