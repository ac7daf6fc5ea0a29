"""How inputs are drawn: the same few each time, or ever new ones for JOULEPATH_FUZZ_S seconds in all (`make fuzz`).

Hypothesis draws what is valid and shrinks what fails; a plain generator changes each of those many times, as
Hypothesis's own choices cost a hundred times as much as what is checked.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

__all__ = ["changed", "fuzz"]

T = TypeVar("T")

_SECONDS: Final = float(os.environ.get("JOULEPATH_FUZZ_S", "0"))
_FEW: Final = 5
_MANY: Final = 20
_CHANGED: Final = 300
_LONGEST_BYTES: Final = 66_000
"""More than a message may have."""


def fuzz(check: Callable[[T, random.Random], None], inputs: st.SearchStrategy[T], share: float) -> None:
    """Checks inputs, each with a source of chance; `share` is of the seconds.

    What is found is written down as an example of its test.
    """
    ends_at_s = time.monotonic() + share * _SECONDS
    phases = (Phase.generate, Phase.shrink)
    settled = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None, phases=phases)

    def check_some(chosen: settings) -> None:
        chosen(given(inputs, st.integers(0, 2**32))(lambda drawn, seed: check(drawn, random.Random(seed))))()

    check_some(settings(settled, max_examples=_FEW, derandomize=True))
    rounds = 0
    while time.monotonic() < ends_at_s:
        check_some(settings(settled, max_examples=_MANY, derandomize=False))
        rounds += 1
    print(f"{_FEW} inputs and {rounds * _MANY} new ones, each changed {_CHANGED} times")


def changed(message: bytes, chance: random.Random) -> Iterator[bytes]:
    """The message; then it with bytes and pieces changed, and now and then nothing of it."""
    yield message
    for _ in range(_CHANGED):
        new = message if chance.random() < 0.9 else chance.randbytes(chance.randrange(300))
        for _ in range(chance.randrange(1, 4)):
            new = chance.choice(_CHANGES)(new, chance)[:_LONGEST_BYTES]
        yield new


def _set(message: bytes, chance: random.Random) -> bytes:
    at, new = chance.randint(0, len(message)), chance.randbytes(chance.randrange(1, 9))
    return message[:at] + new + message[at + len(new) :]


def _flip(message: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(message)) if message else 0
    return message[:at] + bytes(byte ^ 1 << chance.randrange(8) for byte in message[at : at + 1]) + message[at + 1 :]


def _insert(message: bytes, chance: random.Random) -> bytes:
    at = chance.randint(0, len(message))
    return message[:at] + _piece(chance) + message[at:]


def _cut(message: bytes, chance: random.Random) -> bytes:
    first, second = _two(message, chance)
    return message[:first] + message[second:]


def _end(message: bytes, chance: random.Random) -> bytes:
    return message[: chance.randint(0, len(message))]


def _repeat(message: bytes, chance: random.Random) -> bytes:
    """What makes a message large: a piece of it again and again."""
    first, second = _two(message, chance)
    piece = message[first:second]
    return message[:second] + piece * (chance.choice(_LENGTHS_BYTES) // max(1, len(piece))) + message[second:]


def _swap(message: bytes, chance: random.Random) -> bytes:
    """A value of JSON for another."""
    there = [value for value in _SMALL if value in message]
    return message.replace(chance.choice(there), _piece(chance), 1) if there else message


def _piece(chance: random.Random) -> bytes:
    """Seldom a large one: it costs as much as a hundred others."""
    return chance.choice(_LARGE if chance.random() < _SELDOM else _SMALL)


def _two(message: bytes, chance: random.Random) -> tuple[int, int]:
    first, second = sorted((chance.randint(0, len(message)), chance.randint(0, len(message))))
    return first, second


_NESTED: Final = [
    opened * depth + inner + closed * depth
    for depth in (300, 900, 990, 1000, 10_000)
    for opened, inner, closed in ((b"[", b"", b"]"), (b'{"a":', b"1", b"}"))
]
_LARGE: Final = [
    *(b'"' + b"x" * 60_000 + b'"', b"[" + b"0," * 30_000 + b"0]", b"[" + b"[]," * 20_000 + b"[]]", b"9" * 4000),
    *_NESTED,
]
_SMALL: Final = [
    *(b"0", b"1", b"-1", b"1.5", b"1e999", b"NaN", b"true", b"false", b"null", b'""', b"[]", b"{}"),
    *(b"\0", b"\xff", b'"', b"{", b"[", b",", b":", b"\xed\xa0\x80", b'"\\ud800"', b'"beat"'),
]
_LENGTHS_BYTES: Final = (0, 10, 20, 50, 100, 200, 500, 1000, 70_000)
_SELDOM: Final = 0.03
_CHANGES: Final[list[Callable[[bytes, random.Random], bytes]]] = [
    _set,
    _flip,
    _insert,
    _cut,
    _end,
    _repeat,
    _swap,
    _swap,
]
