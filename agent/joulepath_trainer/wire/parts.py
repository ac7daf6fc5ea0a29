"""Records of more instructions than one message holds, in parts: how they are cut, and put together again.

A record that one message holds goes as it is. Of others each part is a record of its own, of some of the instructions,
behind a head that says which they are. Parts come in their order; where one is lost, so is the record.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from joulepath_trainer.wire.messages import InstructionSpan, IterationRecord
from joulepath_trainer.wire.protocol import PAIR, WireError

__all__ = ["MOST_INSTRUCTIONS", "Gathering", "parts_of", "total_of"]

MOST_INSTRUCTIONS: Final = 65535
"""Of an iteration: none of them can be told where there are more."""
_EACH: Final = 2700
"""Instructions of a part, of which pairs count twice: a message takes 2,729."""
_HEAD: Final = struct.Struct("<4sHH")
"""Tag, number of the first instruction, and how many there are in all parts."""
_TAG: Final = b"JPS1"


def parts_of(record: IterationRecord) -> Iterator[bytes]:
    """The messages of a record of at most MOST_INSTRUCTIONS."""
    total = len(record.spans)
    each = _EACH // 2 if any(span.kind == PAIR for span in record.spans) else _EACH
    if total <= each:
        yield record.encode()
        return
    for first in range(0, total, each):
        part = replace(record, spans=record.spans[first : first + each])
        yield _HEAD.pack(_TAG, first, total) + part.encode()


def total_of(message: bytes) -> int | None:
    """How many instructions the record has of which this is a part; None where it is none."""
    if len(message) < _HEAD.size or message[:4] != _TAG:
        return None
    return int(_HEAD.unpack_from(message)[2])


@dataclass(slots=True)
class Gathering:
    """Puts the parts of one peer's records together, one record at a time."""

    _spans: list[InstructionSpan] = field(default_factory=list)
    _iteration: int = -1

    def take(self, message: bytes) -> IterationRecord | None:
        """A record, if this is one or the last part of one. Nothing is kept of more than one, nor beyond its total.

        Raises:
            WireError: It is none.
        """
        if total_of(message) is None:
            return IterationRecord.decode(message)
        _, first, total = _HEAD.unpack_from(message)
        part = IterationRecord.decode(message[_HEAD.size :])
        if not part.spans or first + len(part.spans) > total:
            raise WireError(f"{len(part.spans)} instructions from {first} on are no part of {total}")
        if first == 0:
            self._spans, self._iteration = [], part.iteration
        elif first != len(self._spans) or part.iteration != self._iteration:
            self._spans = []  # one between was lost
            return None
        self._spans += part.spans
        if len(self._spans) < total:
            return None
        spans, self._spans = tuple(self._spans), []
        return replace(part, spans=spans)
