"""The messages between the clocks and the agent of a node, one `SOCK_SEQPACKET` message each.

A message is a JSON object with the name of its kind, and, after a zero byte, what isn't worth reading on the way: a
rank's hello and records as they came, markers packed. Both ends are of one release, start with one image and speak over
a socket that only root may open: a message that can't be read ends the connection, and nothing else.

Ranks are named by numbers that the clocks count up, and never reuse. Times are the monotonic clock's, which is one on a
node.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, Final

from joulepath_clocks.gpus.lags import LagSummary, TargetLag
from joulepath_clocks.peers.peer import JobPod
from joulepath_rules import Applied, Arm, Blocks, Instruction, Length, Plan, Purpose, RankState, StagePlan, Sweep
from joulepath_trainer.wire.page import MarkerEntry, MarkerEvent

__all__ = [
    "LOCK_NAME",
    "MOST_BYTES",
    "MOST_MARKS",
    "SOCKET_NAME",
    "AgentWord",
    "Asked",
    "Began",
    "Came",
    "ChannelError",
    "ClocksWord",
    "Dismiss",
    "Gone",
    "GpuNews",
    "Heard",
    "KnownLags",
    "Looked",
    "Mark",
    "NodeNews",
    "Placed",
    "Play",
    "PythonNews",
    "RankNews",
    "Recorded",
    "Told",
    "decode",
    "encode",
    "pack_marks",
    "unpack_marks",
]

SOCKET_NAME: Final = "clocks.sock"
"""In the state folder."""
LOCK_NAME: Final = "agent.lock"
"""Beside it: an agent holds it for life, so that a second one waits. The clocks make it."""
MOST_BYTES: Final = 160_000
"""Of a message: what a socket's buffer of usual size takes."""

_MARK: Final = struct.Struct("<BBHHId")
MOST_MARKS: Final = 8300
"""Of one message: the largest iteration that is measured has two for each of its 4,096 instructions."""

Mark = tuple[MarkerEntry, float]
"""A marker, and when it was seen."""


class ChannelError(ValueError):
    """A message that can't be read."""


# what the clocks say


@dataclass(frozen=True, slots=True)
class GpuNews:
    """A GPU as it is now."""

    uuid: str
    index: int
    minor: int | None
    mig: bool
    model: str
    driver: str
    power_cap_w: float | None
    default_clock_mhz: int
    supported_clocks_mhz: tuple[int, ...]
    refused: str | None
    ordered_mhz: int
    settled_mhz: int | None
    lag: LagSummary | None
    sets: int
    failures: int
    reasserted: int
    yielded: int


@dataclass(frozen=True, slots=True)
class Came:
    """A rank is there."""

    rank: int
    gpu_uuid: str
    pod: JobPod
    hello: bytes


@dataclass(frozen=True, slots=True)
class RankNews:
    """A rank as it is now."""

    rank: int
    iteration: int
    arm: Arm
    state: RankState
    reason: str
    foreign: str
    """Of a clock that somebody else has set lately, in words; empty if there was none."""
    staged_hash: str | None
    staged_at_iteration: int | None
    applied_hash: str | None
    leased: bool


@dataclass(frozen=True, slots=True)
class Gone:
    """A rank is gone."""

    rank: int


@dataclass(frozen=True, slots=True)
class Began:
    """An iteration of a rank has begun."""

    rank: int
    iteration: int
    applied: Applied
    at_s: float
    spoiled_before: bool
    """Whether the one before didn't run to its end what it began."""
    length_before: Length
    """What is known of how long the one before took."""
    marks: bytes
    """Packed: what was passed since the begin before."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A rank's record of an iteration, unread."""

    rank: int
    message: bytes


@dataclass(frozen=True, slots=True)
class Looked:
    """An SM clock that was not the one ordered, while an instruction ran."""

    gpu_uuid: str
    at_s: float
    clock_mhz: int
    foreign: bool
    """Whether somebody else has set it; else power or heat hold it back."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Where does this pod stand, and is the GPU its own? To be answered by Placed."""

    number: int
    pod_uid: str
    gpu_uuid: str


@dataclass(frozen=True, slots=True)
class PythonNews:
    """A pod in which a Python that is too old for the trainer imports torch."""

    pod_uid: str
    version: str
    needed: str


@dataclass(frozen=True, slots=True)
class NodeNews:
    """All else that is as it is."""

    at_s: int
    """When, so that it is said each second: silence is a sign as well."""
    well: bool
    """Whether NVML answers or there are no GPUs, ranks can connect and no clock is stuck."""
    trouble: str
    """Why the warden leases nothing; empty while it does."""
    lease_ends: dict[str, int]
    refusals: dict[str, int]
    lost: int
    """Messages that the agent didn't take."""


# what the agent says


@dataclass(frozen=True, slots=True)
class Play:
    """A rank's plan as it is now; where there is none to play, perhaps why."""

    rank: int
    plan: Plan | None
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """There was news of plans, or that nothing is new."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Told:
    """What was measured of a rank."""

    rank: int
    order: tuple[Instruction, ...]
    control_time_s: float
    tail_s: float | None
    usual_tail_s: float


@dataclass(frozen=True, slots=True)
class Placed:
    """The answer to Asked: a pod, or why the peer is refused."""

    number: int
    pod: JobPod | None
    code: str = ""
    message: str = ""
    final: bool = False


@dataclass(frozen=True, slots=True)
class Dismiss:
    """A rank is to be served no more."""

    rank: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class KnownLags:
    """Lags that a doctor has measured, by the clock ordered; 0 is default clocks."""

    gpu_uuid: str
    up_s: tuple[tuple[int, tuple[float, ...]], ...]
    down_s: tuple[tuple[int, tuple[float, ...]], ...]


ClocksWord = GpuNews | Came | RankNews | Gone | Began | Recorded | Looked | Asked | PythonNews | NodeNews
AgentWord = Play | Heard | Told | Placed | Dismiss | KnownLags


def _named(values: Any) -> dict[str, Any]:
    """A dataclass as an object; `asdict` would copy all that is in it first."""
    return {field.name: getattr(values, field.name) for field in fields(values)}


_JSON: Final = json.JSONEncoder(default=_named, separators=(",", ":"))
_KINDS: Final[dict[str, type]] = {kind.__name__: kind for kind in (*ClocksWord.__args__, *AgentWord.__args__)}


def encode(word: ClocksWord | AgentWord) -> bytes:
    """The message."""
    body, tail = {}, b""
    for field in fields(word):
        value = getattr(word, field.name)
        if isinstance(value, bytes):
            tail = value
        else:
            body[field.name] = value
    kind = {"is": type(word).__name__}
    return _JSON.encode(kind | body).encode() + b"\0" + tail


def decode(message: bytes) -> ClocksWord | AgentWord:
    """Reads a message.

    Raises:
        ChannelError: It is none.
    """
    head, _, tail = message.partition(b"\0")
    try:
        body = json.loads(head)
        kind = _KINDS[body.pop("is")]
        made: dict[str, Any] = {name: _READ.get(name, _plain)(value) for name, value in body.items()}
        made |= {field.name: tail for field in fields(kind) if field.type == "bytes"}
        word: ClocksWord | AgentWord = kind(**made)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ChannelError(f"{error!r} in {head[:100]!r}") from None
    return word


def pack_marks(marks: Iterable[Mark]) -> bytes:
    """At most MOST_MARKS, in the order in which they were passed; their sequence numbers are cut off."""
    packed = (
        _MARK.pack(int(one.event), ord(one.kind or "\0"), one.stage, one.microbatch, one.iteration, at_s)
        for one, at_s in marks
    )
    return b"".join(packed)


def unpack_marks(packed: bytes) -> list[Mark]:
    """The same, read."""
    return [
        (MarkerEntry(0, iteration, MarkerEvent(event), chr(kind).strip("\0"), stage, microbatch), at_s)
        for event, kind, stage, microbatch, iteration, at_s in _MARK.iter_unpack(packed)
    ]


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _plan(value: dict[str, Any] | None) -> Plan | None:
    if value is None:
        return None
    sweep, blocks, stages = value.pop("sweep"), value.pop("blocks"), value.pop("stages")
    plan = Plan(
        **value | {"purpose": Purpose(value["purpose"])},
        sweep=sweep and Sweep(**{name: _plain(part) for name, part in sweep.items()}),
        blocks=blocks and Blocks(**blocks),
        stages=tuple(StagePlan(**{name: _plain(part) for name, part in stage.items()}) for stage in stages),
    )
    if not _makes_sense(plan):
        raise ValueError("a plan with numbers that no JobPlan has")
    return plan


def _makes_sense(plan: Plan) -> bool:
    """The clocks play nothing that they only trust the agent to have checked."""
    clocks_mhz = [clock for stage in plan.stages for clock in stage.clocks_mhz]
    times_s = [seconds for stage in plan.stages for seconds in stage.durations_s]
    times_s += [plan.control_iteration_time_s, plan.plan_iteration_time_s, plan.allowed_slowdown or 0.0]
    counts = [plan.attempt, plan.activate_at or 0, plan.sparse_from or 0, plan.default_clock_mhz - 1]
    if plan.sweep is not None:
        clocks_mhz += (*plan.sweep.clocks_mhz, *plan.sweep.to_and_fro_mhz)
        counts.append(plan.sweep.iterations_per_block - 1)
    if plan.blocks is not None:
        counts += [plan.blocks.iterations - 3, plan.blocks.pairs, (plan.blocks.every or 2) - 2]
    aligned = all(len(one.order) == len(one.clocks_mhz) == len(one.durations_s) for one in plan.stages)
    aligned &= plan.sweep is None or len(plan.sweep.to_and_fro_mhz) in (0, len(plan.sweep.clocks_mhz))
    whole = all(type(one) is int and one >= 0 for one in (*clocks_mhz, *counts))
    return aligned and whole and all(0 <= one < math.inf for one in times_s)


def _times(value: list[float]) -> tuple[float, ...]:
    times_s = tuple(map(float, value))
    if not all(0 <= one < math.inf for one in times_s):
        raise ValueError("lags that are no times")
    return times_s


def _times_by_clock(value: list[Any]) -> tuple[tuple[int, tuple[float, ...]], ...]:
    return tuple((int(clock), _times(times)) for clock, times in value)


def _time(value: float | None) -> float | None:
    return None if value is None else _times([value])[0]


_READ: Final[dict[str, Callable[[Any], Any]]] = {
    "plan": _plan,
    "pod": lambda pod: pod and JobPod(**pod),
    "lag": lambda lag: lag and LagSummary(**lag | {"targets": tuple(TargetLag(**one) for one in lag["targets"])}),
    "applied": lambda applied: Applied(**applied | {"arm": Arm(applied["arm"])}),
    "arm": Arm,
    "length_before": Length,
    "state": RankState,
    "up_s": _times_by_clock,
    "down_s": _times_by_clock,
    "control_time_s": _time,
    "tail_s": _time,
    "usual_tail_s": _time,
    "order": lambda order: tuple(Instruction(*one) for one in order),
}
"""By name of a field: what isn't the same in JSON."""
