"""How people write seconds, shares, watts and lists, and what they are told where that can't be read."""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from joulepath_planner.arguments import LONGEST_S, quoted
from joulepath_planner.inputs.profile import MOST_W

_T = TypeVar("_T")
_WHOLE: Final = re.compile(r"[0-9]{1,9}")
_MOST_TIMES: Final = 1000.0
_MOST_BUDGET: Final = 1e15

__all__ = [
    "blocking_power",
    "budget",
    "count",
    "factor",
    "fraction",
    "listed",
    "milliseconds",
    "seconds",
    "straggler",
    "whole",
]


def seconds(text: str) -> float:
    """`2.9s`, `2900ms` or `2.9`, above 0."""
    number, unit = (text[:-2], 1e-3) if text.endswith("ms") else (text.removesuffix("s"), 1.0)
    value = _number(number) * unit
    if not 0 < value <= LONGEST_S:
        raise ArgumentTypeError(f"{quoted(text)} is no time above 0 and up to a day; write 2.9s or 2900ms.")
    return value


def milliseconds(text: str) -> float:
    """Seconds from `10` or `10ms`, 0 or more."""
    value = _number(text.removesuffix("ms")) / 1e3
    if not 0 <= value <= LONGEST_S:
        raise ArgumentTypeError(f"{quoted(text)} is no time of 0 ms or more and up to a day; write 10.")
    return value


def fraction(text: str) -> float:
    """`5%` or `0.05`, 0 or more. A bare number of 1 or more is taken for a forgotten %."""
    value = _number(text[:-1]) / 100 if text.endswith("%") else _number(text)
    if not 0 <= value <= _MOST_TIMES or (value >= 1 and not text.endswith("%")):
        raise ArgumentTypeError(f"{quoted(text)} is no share; write 5% or 0.05.")
    return value


def factor(text: str) -> float:
    """How many times as long: `1.2`."""
    value = _number(text)
    if not 0 < value <= _MOST_TIMES:
        raise ArgumentTypeError(f"{quoted(text)} is no factor above 0 and up to {_MOST_TIMES:g}; write 1.2.")
    return value


def straggler(text: str) -> tuple[float | None, float | None]:
    """(times T_min, None) from `1.2`, or (None, seconds) from `3.4s`."""
    if text.endswith("s"):
        return None, seconds(text)
    value = _number(text)
    if not 0 < value <= _MOST_TIMES:
        raise ArgumentTypeError(f"{quoted(text)} is no straggler; write 1.2 (times T_min) or 3.4s.")
    return value, None


def budget(unit: str) -> Callable[[str], float]:
    """A number above 0 that may carry its unit, with k or M before it: `2.5kW`."""

    def read(text: str) -> float:
        bare = text.removesuffix(unit)
        scale = {"k": 1e3, "M": 1e6}.get(bare[-1:], 1.0)
        value = _number(bare[:-1] if scale != 1.0 else bare) * scale
        if not 0 < value <= _MOST_BUDGET:
            raise ArgumentTypeError(f"{quoted(text)} is no budget above 0; write 2500{unit} or 2.5k{unit}.")
        return value

    return read


def blocking_power(text: str) -> float | Mapping[int, float]:
    """`83.64`, or by clock `1410=90,1005=70`; watts of one GPU."""
    if "=" not in text:
        value = _number(text.removesuffix("W"))
        if not 0 <= value <= MOST_W:
            raise ArgumentTypeError(
                f"{quoted(text)} is no power of 0 W or more that a GPU draws while it waits; write 83.64, or by clock "
                "1410=90,1005=70."
            )
        return value
    found: dict[int, float] = {}
    for part in text.split(","):
        clock, _, watts = part.partition("=")
        if not _WHOLE.fullmatch(clock.strip()) or not 0 <= (value := _number(watts)) <= MOST_W:
            raise ArgumentTypeError(f"{quoted(part)} is no clock with its watts; write 1410=90,1005=70.")
        if int(clock) in found:
            raise ArgumentTypeError(f"{quoted(text)} has {int(clock)} MHz twice; give each clock once.")
        found[int(clock)] = value
    return found


def count(text: str) -> int:
    """A whole number above 0."""
    if not _WHOLE.fullmatch(text) or int(text) < 1:
        raise ArgumentTypeError(
            f"{quoted(text)} is no whole number above 0; write one of up to nine digits, such as 8."
        )
    return int(text)


def whole(text: str) -> int:
    """A whole number, 0 or more."""
    if not _WHOLE.fullmatch(text):
        raise ArgumentTypeError(
            f"{quoted(text)} is no whole number of 0 or more; write one of up to nine digits, such as 0."
        )
    return int(text)


def listed(read: Callable[[str], _T]) -> Callable[[str], list[_T]]:
    """Several of them, with commas between."""
    return lambda text: [read(part.strip()) for part in text.split(",")]


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
