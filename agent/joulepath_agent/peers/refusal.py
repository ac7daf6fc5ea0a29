"""Why a process is not served, and whether it may ask again."""

from __future__ import annotations

__all__ = ["PeerRefusedError"]


class PeerRefusedError(Exception):
    """A peer isn't served."""

    def __init__(self, code: str, message: str, *, passing: bool = False) -> None:
        """Coins a refusal.

        Args:
            code: One of a few words, for metrics.
            message: What to do.
            passing: Whether it may be over in a moment: a trainer that is told never asks again, so it isn't told.
        """
        super().__init__(f"{code}: {message}")
        self.code = code
        self.passing = passing
