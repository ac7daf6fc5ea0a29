"""What agent and warden say to each other: JSON, a packet each, over a SOCK_SEQPACKET socket in the state folder.

The warden greets with an answer; then each request is answered by one. A lease is kept by beats that name it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

__all__ = ["BEAT_S", "DEADLINE_S", "DOCTOR_FOLDER", "MAX_MESSAGE_BYTES", "SOCKET_NAME", "Answer", "Request", "Verb"]

SOCKET_NAME: Final = "warden.sock"
DOCTOR_FOLDER: Final = "doctor"
"""In the state folder: of another socket, at which a doctor leases GPUs beside the agent."""
MAX_MESSAGE_BYTES: Final = 65536
BEAT_S: Final = 0.3
DEADLINE_S: Final = 1.5
"""A lease that no beat has named for so long is revoked; a warden that hasn't answered for so long is gone."""


class Verb(StrEnum):
    """What a request is for."""

    TAKE = "take"
    GIVE_BACK = "giveBack"
    BEAT = "beat"


@dataclass(frozen=True, slots=True)
class Request:
    """GPUs by their UUIDs: to lease, reset for good by the agent, or still wanted and well."""

    verb: Verb
    gpus: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """As a packet."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, packet: bytes) -> Request:
        """Reads a packet.

        Raises:
            ValueError: It is none.
        """
        body = _object(packet)
        verb = body.get("verb")
        if verb not in tuple(Verb):
            raise ValueError(f"a verb must be one of {', '.join(Verb)}, it is {verb!r:.80}")
        return cls(Verb(verb), _texts(body.get("gpus")))


@dataclass(frozen=True, slots=True)
class Answer:
    """What the warden says."""

    refused: str = ""
    """Why nothing is leased, in a sentence; empty where that isn't so."""
    revoked: tuple[str, ...] = ()
    """GPUs that the agent has to let go of and give back."""
    in_doubt: tuple[str, ...] = ()
    """GPUs that may be locked and that nobody has a lease of."""

    def encode(self) -> bytes:
        """As a packet."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, packet: bytes) -> Answer:
        """Reads a packet.

        Raises:
            ValueError: It is none.
        """
        body = _object(packet)
        refused = body.get("refused", "")
        if not isinstance(refused, str):
            raise ValueError(f"why nothing is leased must be a text, it is {refused!r:.80}")
        return cls(refused, _texts(body.get("revoked")), _texts(body.get("in_doubt")))


def _object(packet: bytes) -> dict[str, Any]:
    try:
        body = json.loads(packet.decode())
    except RecursionError:
        raise ValueError(f"a message is nested too deeply, it starts with {packet[:80]!r}") from None
    if not isinstance(body, dict):
        raise ValueError(f"a message must be an object, not {packet[:80]!r}")
    return body


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"GPUs must be a list of UUIDs, they are {value!r:.80}")
    return tuple(value)
