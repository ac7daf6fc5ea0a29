"""Why a process is not served, and whether it may ask again."""

from __future__ import annotations

__all__ = ["PeerRefusedError"]


class PeerRefusedError(Exception):
    """A peer isn't served."""

    def __init__(self, code: str, message: str, *, final: bool = False) -> None:
        """Coins a refusal.

        Args:
            code: One of a few words, for metrics.
            message: What to do.
            final: Whether it can't heal while the process lives, so that it never asks again: errors of the protocol
                only. A kubelet or an API server that restarts may not know a pod for a moment, or still know another.
        """
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.final = final
