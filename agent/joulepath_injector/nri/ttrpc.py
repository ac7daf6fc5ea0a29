"""Calls: a message is headed by its length, the number of its call, and whether it asks or answers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from joulepath_injector.nri.frames import NriError

__all__ = ["REQUEST", "RESPONSE", "Message", "Messages", "pack"]

REQUEST: Final = 1
RESPONSE: Final = 2

_HEAD: Final = struct.Struct(">IIBB")
_MOST_BYTES: Final = 4 * 1024 * 1024
_CLOSED: Final = 1
"""Flag of a request: nothing follows it."""


@dataclass(frozen=True, slots=True)
class Message:
    """One that is whole."""

    call: int
    kind: int
    body: bytes


class Messages:
    """The messages of a connection, put together from what its frames carry."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def take(self, data: bytes) -> Iterator[Message]:
        """What has become whole with these bytes.

        Raises:
            NriError: A message is longer than any may be.
        """
        self._bytes += data
        while len(self._bytes) >= _HEAD.size:
            length, call, kind, _ = _HEAD.unpack_from(self._bytes)
            if length > _MOST_BYTES:
                raise NriError(f"a message of {length} bytes: it may have {_MOST_BYTES}")
            end = _HEAD.size + length
            if len(self._bytes) < end:
                return
            body = bytes(self._bytes[_HEAD.size : end])
            del self._bytes[:end]
            yield Message(call, kind, body)


def pack(message: Message) -> bytes:
    """As it crosses the connection."""
    flags = _CLOSED if message.kind == REQUEST else 0
    return _HEAD.pack(len(message.body), message.call, message.kind, flags) + message.body
