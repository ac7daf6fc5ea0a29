"""Runs: stretches of consecutive iterations of one block (or of no block), instructions on the agent's clock. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Final

from joulepath_agent.measuring.spans import Spans
from joulepath_crds import Instruction
from joulepath_rules import Applied, Length, Sort, counted

__all__ = ["Moment", "Run", "TimedIteration", "step_begin_s"]

_ITERATION_BYTES: Final = 256

Moment = tuple[bool, Instruction | None]
"""Whether it is an end, and of which instruction, as markers name it; of the step itself if None."""


@dataclass(frozen=True, slots=True)
class TimedIteration:
    """One iteration on the agent's monotonic clock."""

    number: int
    begin_s: float
    period_s: float
    """Seconds to the begin of the next one, or of what came before that."""
    spans: Spans | None
    """None where its record was dropped."""
    length: Length = Length.WHOLE

    @property
    def end_s(self) -> float:
        """Where these are over."""
        return self.begin_s + self.period_s

    @property
    def bytes(self) -> int:
        """What it keeps in memory."""
        return _ITERATION_BYTES + (0 if self.spans is None else self.spans.bytes)


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive iterations of one block, or of none."""

    applied: Applied
    settled: bool
    """Whether the clock was already this one before the first iteration."""
    iterations: tuple[TimedIteration, ...]
    bytes: int = 0
    """What it keeps in memory."""

    @property
    def begin_s(self) -> float:
        """Begin of its first iteration."""
        return self.iterations[0].begin_s

    @property
    def end_s(self) -> float:
        """End of its last iteration."""
        return self.iterations[-1].end_s

    @property
    def counted(self) -> tuple[TimedIteration, ...]:
        """Those that count, iteration 0 apart: it compiles, allocates and infers shapes."""
        return tuple(self.iterations[at] for at in self._counted[1] if self.iterations[at].number > 0)

    @property
    def sort(self) -> Sort:
        """Of which sort these are."""
        return self._counted[0]

    @property
    def _counted(self) -> tuple[Sort, tuple[int, ...]]:
        return counted([one.length for one in self.iterations], self.settled)

    @property
    def stretches(self) -> tuple[tuple[TimedIteration, ...], ...]:
        """Of these, those that follow each other."""
        groups = groupby(enumerate(self.counted), lambda place: place[1].number - place[0])
        return tuple(tuple(iteration for _, iteration in group) for _, group in groups)


def step_begin_s(spans: Spans, end_s: float, seen_s: dict[Moment, float]) -> float:
    """When a step began, on the agent's clock: markers are seen late, never early, so the least difference tells it.

    `seen_s` has when each marker was seen, that of the step's begin among them.
    """
    offsets: dict[Moment, float] = {(False, None): 0.0, (True, None): end_s}
    for one, (begin, end) in zip(spans.steps.instructions, spans.times_s.tolist(), strict=True):
        offsets[False, one.mark], offsets[True, one.mark] = begin, end
    return min(seen - offsets[mark] for mark, seen in seen_s.items() if mark in offsets)
