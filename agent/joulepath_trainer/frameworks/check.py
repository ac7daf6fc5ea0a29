"""Whether a framework is as its adapter knows it: compared when it is imported, whatever version it says to be.

What an adapter wraps stands in a table in its module. Where something of it is missing, or takes other arguments, what
rests on it is left alone: instructions first, so that iterations are told, then these. Which version lacks what is told
to the agent, and stands in the EnergyPlan.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Check", "Wrapped"]


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A function that is wrapped, and what is taken for granted of it."""

    path: str
    """In its module, such as `_PipelineStageBase.forward_one_chunk`."""
    first: tuple[str, ...] = ()
    """Its first parameters, `self` apart."""
    among: tuple[str, ...] = ()
    """Parameters that it has as well, wherever."""

    def amiss(self, module: object) -> str:
        """How what is there differs; empty where it doesn't."""
        found: Any = module
        for name in self.path.split("."):
            found = getattr(found, name, None)
        if not callable(found):
            return f"there is no {self.path}"
        names = [name for name in inspect.signature(found).parameters if name != "self"]
        if tuple(names[: len(self.first)]) != self.first or not set(self.among) <= set(names):
            expected = ", ".join((*self.first, *self.among))
            return f"{self.path} has parameters ({', '.join(names)}), of which ({expected}) were expected"
        return ""


class Check:
    """What has been found in this process."""

    def __init__(self) -> None:
        self._frameworks: list[str] = []
        self._lacks: list[tuple[str, str]] = []

    def passes(self, framework: str, module: object, table: Sequence[Wrapped], else_: str) -> bool:
        """Whether all of it is as known.

        Args:
            framework: The package whose version counts.
            module: That has what stands in the table.
            table: What is to be wrapped.
            else_: What is seen without, in words.
        """
        if framework not in self._frameworks:
            self._frameworks.append(framework)
        try:
            amiss = next(filter(None, (one.amiss(module) for one in table)), "")
        except Exception as error:
            amiss = repr(error)
        if amiss:
            self.lacks(framework, amiss, else_)
        return not amiss

    def lacks(self, framework: str, amiss: str, else_: str) -> None:
        """It isn't as known."""
        self._lacks.append((framework, f"isn't as known ({amiss:.300}): {else_}"))

    def told(self) -> tuple[str, str]:
        """The frameworks with their versions, and what of them isn't seen; empty where all is."""
        lacks = "; ".join(f"{_named(framework)} {what}" for framework, what in self._lacks)
        return ", ".join(map(_named, self._frameworks)), lacks


def _named(framework: str) -> str:
    # Asked late: a package may import what is wrapped before it says its version.
    return f"{framework} {getattr(sys.modules.get(framework), '__version__', 'of an unknown version')}"
