"""What both sides of the socket agree on before they say anything."""

from __future__ import annotations

from typing import Final

__all__ = [
    "KINDS",
    "MAX_MESSAGE_BYTES",
    "PAIR",
    "SOCKET_ENV",
    "SOCKET_PATH",
    "VERSION",
    "OtherVersionError",
    "WireError",
]

VERSION: Final = 2
SOCKET_ENV: Final = "JOULEPATH_SOCKET"
SOCKET_PATH: Final = "/run/joulepath/agent.sock"
MAX_MESSAGE_BYTES: Final = 65536
KINDS: Final = "FBIW"
"""Of instructions: forward, full backward, input gradient, weight gradient."""
PAIR: Final = "P"
"""A forward and a full backward that run interleaved, as one instruction, with the forward's stage and microbatch."""


class WireError(ValueError):
    """A message or page that doesn't follow this format; the text says what is wrong with it."""


class OtherVersionError(WireError):
    """A hello of another version of this format: agent and trainer are of different releases."""
