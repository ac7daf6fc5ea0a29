"""Inside the training process: tells the node's agent where the GPU is in an iteration, and nothing more.

Standard library only. It fails open: whatever goes wrong here, training goes on as if it were not there.

`describe`, `iteration` and `instruction` are for loops that no adapter knows (see `loop`). Every Python process of a
pod imports this package at its start: they are imported by whoever asks for them, and nothing else is.
"""

TYPE_CHECKING: "Final" = False
if TYPE_CHECKING:
    from typing import Final

    from joulepath_trainer.loop import describe, instruction, iteration

__all__ = ["describe", "instruction", "iteration"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from joulepath_trainer import loop

    return getattr(loop, name)
