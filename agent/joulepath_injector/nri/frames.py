"""Two connections in one: a frame is headed by the number of its connection, and its length."""

from __future__ import annotations

import socket
import struct
from typing import Final

__all__ = ["PLUGIN", "RUNTIME", "NriError", "receive", "send"]

PLUGIN: Final = 1
"""The connection by which the runtime calls the plugin."""
RUNTIME: Final = 2
"""The one by which the plugin calls the runtime."""

_HEAD: Final = struct.Struct(">II")
_MOST_BYTES: Final = 10 + 4 * 1024 * 1024
"""One message of ttrpc; the runtime sends it as one frame."""
_PIECE_BYTES: Final = 4096
"""What the runtime has room for, however much of a message it asks for at once."""


class NriError(RuntimeError):
    """The runtime ends the connection, refuses the plugin, or says what isn't NRI."""


def send(trunk: socket.socket, connection: int, data: bytes) -> None:
    """Sends a message by one of the connections."""
    pieces = (data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES))
    trunk.sendall(b"".join(_HEAD.pack(connection, len(piece)) + piece for piece in pieces))


def receive(trunk: socket.socket) -> tuple[int, bytes]:
    """Waits for a frame: its connection and its bytes, which may be a part of a message.

    Raises:
        NriError: The connection has ended, or the frame can't be one.
    """
    connection, length = _HEAD.unpack(_exactly(trunk, _HEAD.size))
    if length > _MOST_BYTES:
        raise NriError(f"a frame of {length} bytes: at most {_MOST_BYTES} are sent")
    return connection, _exactly(trunk, length)


def _exactly(trunk: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        if not (more := trunk.recv(length - len(data))):
            raise NriError("the runtime has closed the connection")
        data += more
    return bytes(data)
