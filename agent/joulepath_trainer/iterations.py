"""Iterations on their way to the agent: marked by the host, passed by the GPU some time later, then sent as records.

The host never waits for the GPU: it looks, after each step, which earlier iterations the GPU has been through.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from joulepath_trainer.marking.marks import Marks
from joulepath_trainer.wire.messages import InstructionSpan, IterationRecord

__all__ = ["MarkedIteration", "PendingIterations"]

_MOST_PENDING: Final = 64
"""Iterations by which the host may be ahead: it is by ten where the loss is looked at each tenth time, if they are so
small that the GPU's queue takes as many. The agent waits for their records as long."""
_MOST_STAMPS: Final = 16384
"""Of them all; fewer than a few iterations are never kept."""
_LEAST_PENDING: Final = 4


@dataclass(slots=True)
class MarkedIteration:
    """The time stamps of one training step."""

    number: int
    begin: int = 0
    spans: list[tuple[str, int, int, tuple[int, int], int, int]] = field(default_factory=list)
    """Kind, stage, microbatch, those of a pair's backward, begin, end."""
    end: int = 0
    places: set[int] = field(default_factory=set)
    """Where its stamps were put: the streams."""
    whole: bool = True
    """False when something in it could not be marked: there will be no record of it."""
    followed: bool = True
    """False when something else than training comes before the next one."""
    parted: int | None = None
    """Where that began: its period ends there. None where nobody knows: then it has none."""
    stamps: list[int] = field(default_factory=list)
    """All that were put."""


class PendingIterations:
    """Iterations that have ended for the host and perhaps not yet for the GPU, in order; the oldest go if too many."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._ended: deque[MarkedIteration] = deque()
        self._stamps = 0
        self.lost = 0
        """Iterations that went before the GPU came to them."""

    def add(self, iteration: MarkedIteration) -> None:
        """Takes an iteration whose end has been marked."""
        self._ended.append(iteration)
        self._stamps += len(iteration.stamps)
        while len(self._ended) > _MOST_PENDING or (self._stamps > _MOST_STAMPS and len(self._ended) > _LEAST_PENDING):
            self._forget()
            self.lost += 1

    def part(self, stamps: list[int]) -> None:
        """Something else than training comes after the last one, from this stamp on, if there is one."""
        last = self._ended[-1]
        last.followed, last.parted = False, stamps[0] if stamps else None
        last.stamps += stamps
        self._stamps += len(stamps)

    def drop(self) -> None:
        """Nobody waits for any of them any more."""
        while self._ended:
            self._forget()

    def _forget(self) -> None:
        stamps = self._ended.popleft().stamps
        self._stamps -= len(stamps)
        self._marks.recycle(stamps)

    def completed(self, last: bool = False) -> Iterator[IterationRecord]:
        """Records of the iterations that the GPU has been through, and whose period is known (or can't be).

        Args:
            last: No further iteration will begin.
        """
        while self._ended and (last or len(self._ended) > 1):
            iteration = self._ended[0]
            following = self._ended[1] if len(self._ended) > 1 else None
            # What one stream has passed, it has passed in order.
            awaited = [iteration.end] if len(iteration.places) == 1 else list(iteration.stamps)
            if following is not None:
                awaited.append(following.begin)
            if iteration.parted is not None:
                awaited.append(iteration.parted)
            if not all(self._marks.passed(stamp) for stamp in awaited):
                return
            if iteration.whole:
                yield self._record(iteration, following)
            self._forget()

    def _record(self, iteration: MarkedIteration, following: MarkedIteration | None) -> IterationRecord:
        def seconds(stamp: int) -> float:
            return max(0.0, self._marks.seconds(iteration.begin, stamp))

        spans = []
        for kind, stage, microbatch, back, begin, end in iteration.spans:
            begin_s = seconds(begin)
            spans.append(InstructionSpan(kind, stage, microbatch, begin_s, max(begin_s, seconds(end)), back))
        until = iteration.parted
        if iteration.followed and following is not None and following.number == iteration.number + 1:
            until = following.begin
        period_s = 0.0 if until is None else seconds(until)
        return IterationRecord(iteration.number, seconds(iteration.end), period_s, tuple(spans))
