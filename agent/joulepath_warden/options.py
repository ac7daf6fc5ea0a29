"""Options of the node's programs: each may be given by the environment as well."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

__all__ = ["Options", "seconds"]


class Options:
    """Adds options that fall back to the environment."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser

    def take(
        self, flag: str, variable: str, default: str | None, kind: Callable[[str], object] | type, text: str
    ) -> None:
        """Adds one; it must be given where its default is None."""
        value = os.environ.get(variable) or default
        shown = f"{text} [{variable}]" + ("" if default is None else f" (default {default or 'none'})")
        self._parser.add_argument(flag, default=value, required=value is None, type=kind, help=shown)


def seconds(least: float, most: float) -> Callable[[str], float]:
    """The kind of an option that is so many seconds."""

    def read(text: str) -> float:
        if not least <= float(text) <= most:
            raise argparse.ArgumentTypeError(f"it must be from {least} to {most} s, it is {text}")
        return float(text)

    return read
