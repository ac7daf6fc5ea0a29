"""What a GPU can be given to do. Calls of one object come from one thread."""

from __future__ import annotations

from typing import Protocol

__all__ = ["NoWorkError", "Work"]


class NoWorkError(RuntimeError):
    """There is no torch, no CUDA or no GPU here; the text says which."""


class Work(Protocol):
    """Work for one GPU. What runs is kept short, so that a load ends within a tenth of a second or so."""

    name: str
    """What the load is, for the record."""

    def compute(self) -> None:
        """Goes on computing: has some tens of milliseconds of it ahead, and returns when less is."""

    def wait(self) -> None:
        """The same, with a kernel that only spins, as one that waits for a peer."""

    def kernel(self) -> None:
        """Enqueues one short kernel."""

    def finish(self) -> None:
        """Waits until all is done."""

    def stream(self) -> int:
        """The driver's handle of the stream that it works on."""
