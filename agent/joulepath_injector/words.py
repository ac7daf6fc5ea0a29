"""What the injector and the agent of a node say to each other: JSON, a packet each, over a SOCK_SEQPACKET socket.

The injector serves it, for one agent at a time, in a folder of root's. It tells each pod sandbox of the node, all of
them to an agent that comes, and each that ends; the agent answers once for each whether it trains, and which of its
containers have GPUs. What becomes of these is told in turn. Both are of one image: a packet that can't be read ends the
connection, and nothing else. Whether the runtime tells the injector of pods is told as well, once these are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

__all__ = [
    "FOLDER",
    "MOST_BYTES",
    "NO_SOCKET",
    "SOCKET_NAME",
    "AgentWord",
    "Answer",
    "Came",
    "Done",
    "InjectorWord",
    "Left",
    "Outcome",
    "Runtime",
    "decode",
    "encode",
]

FOLDER: Final = "injector"
"""In the state folder; the injector may write there only."""
SOCKET_NAME: Final = "injector.sock"
MOST_BYTES: Final = 65536
NO_SOCKET: Final = "no socket"
"""How `Runtime.why` begins where the runtime has none: NRI is off."""


class Outcome(StrEnum):
    """What became of a container that has GPUs."""

    INJECTED = "Injected"
    LATE = "Late"
    """The answer wasn't there in time: it runs without the trainer."""
    UNSUITED = "Unsuited"
    """It can't take the trainer, `why` says what is in the way."""
    BEFORE = "Before"
    """It ran before the injector was there."""


@dataclass(frozen=True, slots=True)
class Came:
    """A pod's sandbox."""

    uid: str
    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    """Those of `JOB_LABELS`, by which the agent knows a pod's job. Without any of these it gets no trainer."""


@dataclass(frozen=True, slots=True)
class Left:
    """A pod's sandbox is gone."""

    uid: str


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one container of a pod."""

    uid: str
    container: str
    outcome: Outcome
    why: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """Of a pod that came: which of its containers get the trainer; none, where its job doesn't ask for that."""

    uid: str
    containers: tuple[str, ...] = ()
    final: bool = True
    """Whether it stays so: else another answer may follow, as the kubelet or the API server couldn't be asked."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """Whether the container runtime tells the injector what is there: all of it, and what happens."""

    told: bool
    why: str = ""
    """Why it doesn't, in a sentence; empty where it does, or that isn't known yet."""


InjectorWord = Came | Left | Done | Runtime
AgentWord = Answer

_KINDS: Final = {kind.__name__: kind for kind in (Came, Left, Done, Runtime, Answer)}


def encode(word: InjectorWord | AgentWord) -> bytes:
    """As a packet."""
    return json.dumps({"word": type(word).__name__, **asdict(word)}).encode()


def decode(packet: bytes) -> InjectorWord | AgentWord:
    """Reads a packet.

    Raises:
        ValueError: It is none.
    """
    try:
        body = json.loads(packet)
        kind = _KINDS[body.pop("word")]
        read: InjectorWord | AgentWord = _read(kind, body)
        return read
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"no word of injector or agent: {packet[:80]!r} ({error})") from None


def _read(kind: type[Any], body: dict[str, Any]) -> Any:
    for name in ("uid", "namespace", "name", "container", "why"):
        if not isinstance(body.get(name, ""), str):
            raise TypeError(f"{name} must be a text")
    for name in ("final", "told"):
        if not isinstance(body.get(name, True), bool):
            raise TypeError(f"{name} must be true or false")
    if "outcome" in body:
        body["outcome"] = Outcome(body["outcome"])
    if "containers" in body:
        body["containers"] = tuple(str(one) for one in body["containers"])
    if "labels" in body:
        body["labels"] = {str(name): str(value) for name, value in body["labels"].items()}
    return kind(**body)
