"""What torch's compiler finds of the trainer: as little as can be.

Facts about torch (2.7.1 and 2.15, read in its source):

- Where compiled code calls what can't be compiled, the compiler takes each Python function that runs there instead.
  Ours would take it seconds, and again whenever a number in them is another one. `trace_rules.add` has it leave a
  module be.
- What compiled code itself calls in such a module can't be compiled, and raises with `fullgraph=True`. So what models
  call is in a module that is compiled, and does nothing there.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

__all__ = ["compiling", "leave_be", "preceded"]

_CALLED_BY_MODELS: Final = ("joulepath_trainer.loop", __name__)


def compiling(torch: Any) -> bool:
    """Whether torch's compiler goes through what asks, instead of running it; not known of torch before 2.1."""
    return bool(getattr(getattr(torch, "compiler", None), "is_compiling", bool)())


def preceded(original: Callable[..., Any], action: Callable[[], None], module: Any) -> Callable[..., Any]:
    """The function, with the action before it where it isn't compiled. `module` is one that has imported torch."""

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not compiling(module.torch):
            action()
        return original(*args, **kwargs)

    return wrapped


def leave_be(trace_rules: ModuleType) -> None:
    """Has the compiler leave this package be; for `torch._dynamo.trace_rules`."""
    for name, module in tuple(sys.modules.items()):
        if name.startswith("joulepath_trainer.") and name not in _CALLED_BY_MODELS and not hasattr(module, "__path__"):
            trace_rules.add(name)
