"""How often a schedule runs for one step of the optimizer: gradients may be accumulated over several rounds.

The rounds are what an iteration takes, however many. They are counted between two steps of an optimizer; a training
without one of torch's has an iteration each round.
"""

from __future__ import annotations

__all__ = ["Rounds"]


class Rounds:
    """Counts them."""

    def __init__(self) -> None:
        self.count = 1
        """Of the iteration before."""
        self._begun = 0
        self._stepped = False

    @property
    def made_no_step(self) -> bool:
        """Whether all rounds of an iteration have run and no optimizer has stepped, though one did before: a GradScaler
        has skipped it."""
        return self._stepped and self._begun == self.count

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
            self.count, self._begun, self._stepped = self._begun, 0, True
