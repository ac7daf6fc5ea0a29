"""How often a schedule runs for one step of the optimizer, and whether that step is made.

Gradients may be accumulated over several rounds. They are what an iteration takes, however many, and are counted
between two steps of an optimizer; a training without one of torch's has an iteration each round.

Where gradients overflow, as those of 16 bits do, the step is skipped by torch's GradScaler, or by Megatron's and
DeepSpeed's optimizers, which then don't call torch's. All else of the iteration ran, but it is shorter than others.
"""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["Rounds", "Skips"]

_MEMORY: Final = 8
_MOST_SKIPPED: Final = 2
"""Iterations of so many that may make no step; where more don't, that is how it trains, or the steps aren't seen."""


class Rounds:
    """Counts them."""

    def __init__(self) -> None:
        self.count = 1
        """Of the iteration before."""
        self._begun = 0

    def begin(self) -> tuple[int, bool]:
        """The number of the round that begins, within its iteration, and whether it is expected to be the last."""
        number = self._begun % self.count
        self._begun += 1
        return number, number == self.count - 1

    def fail(self) -> None:
        """The round that has begun failed: it doesn't count."""
        self._begun -= 1

    def end(self) -> None:
        """An optimizer has made a step; of several, all but the first say nothing."""
        if self._begun:
            self.count, self._begun = self._begun, 0


class Skips:
    """Tells the iterations that made no step, though others do."""

    def __init__(self) -> None:
        self._stepped = False
        self._lately: deque[bool] = deque(maxlen=_MEMORY)
        """Which of the last iterations made one, from the first that did."""

    def step(self) -> None:
        """An optimizer has made a step."""
        self._stepped = True

    def turn(self) -> bool:
        """An iteration is over; whether its step was skipped."""
        stepped, self._stepped = self._stepped, False
        if not stepped and not self._lately:
            return False
        skipped = not stepped and self._lately.count(False) < _MOST_SKIPPED
        self._lately.append(stepped)
        return skipped
