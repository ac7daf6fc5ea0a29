"""What a rank and the agent say to each other: hello, reply, iteration records.

One connection (`SOCK_SEQPACKET`) for each rank, and four things on it:

1. *Hello*, one JSON message from the trainer: who this rank says it is. The agent believes of it only what it can
   check (the pod by the peer's pidfd, the GPU by the pod's set). It carries a file descriptor: the shared `page` of
   this rank, the same one on each connection of the process.
2. *Welcome* or *refusal*, one JSON message back. No marker is enqueued between a hello and its welcome.
3. Where the welcome wants the *process*, because the agent's kernel doesn't tell whose connection it is: one message
   with a pidfd of the trainer's process. A trainer that sends none is served as well, and an agent that doesn't know
   the message never wants it.
4. *Iteration records*, binary, from the trainer, one for each completed training step: the begin and end of each
   instruction on the GPU's own clock, as offsets from the begin of the step. Sent without blocking; those of more
   instructions than a message holds in `parts`. A pair (P) takes two places: its forward's, then its backward's.

A process whose Python is too old for the trainer says that, once torch is imported there, and nothing else.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from joulepath_trainer.wire.protocol import KINDS, MAX_MESSAGE_BYTES, PAIR, VERSION, OtherVersionError, WireError

__all__ = ["MOST_TEXT", "PROCESS", "Hello", "InstructionSpan", "IterationRecord", "OldPython", "PipelinePlace", "Reply"]

PROCESS: Final = b"JPP1"
"""The message that brings a pidfd."""

_RECORD: Final = struct.Struct("<4sIddH")
_SPAN: Final = struct.Struct("<BxHHxxdd")
_RECORD_TAG: Final = b"JPI1"
_OLD_PYTHON: Final = re.compile(rb"JPV1 (\d{1,2}\.\d{1,2}) (\d{1,2}\.\d{1,2})")
MOST_TEXT: Final = 1000
"""Characters of what a rank lacks."""
_REASON_CHARACTERS: Final = 1000
"""Of a reply: it goes to the log of somebody's training."""


@dataclass(frozen=True, slots=True)
class PipelinePlace:
    """A pipeline, and the place of a rank in it. A job without one is a pipeline of one stage and one microbatch."""

    schedule: str
    """Class name of the schedule, or "" where there is none."""
    stage_count: int
    microbatches: int
    stages: tuple[int, ...]
    """The stages that this rank runs."""
    ranks: tuple[int, ...]
    """Global ranks of this pipeline, by index in the pipeline."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a rank says of itself."""

    rank: int
    local_rank: int
    """Its number on its node. For whoever reads messages: the agent goes by the GPU."""
    world_size: int
    attempt: int
    """Equal on all ranks of a gang of processes, and in general larger than that of the gang before."""
    gpu_uuid: str | None
    markers: str
    """"stream": written by the GPU's stream; "host": by the host, when it has waited for the GPU or has none. For
    whoever reads messages: the agent treats both alike."""
    pipeline: PipelinePlace
    data: int = 0
    tensor: int = 0
    data_parallel: int = 1
    tensor_parallel: int = 1
    framework: str = ""
    """The frameworks in its process, with their versions."""
    lacks: str = ""
    """What of them isn't as the trainer knows it, and what isn't seen therefore; empty where all is."""
    version: int = VERSION

    def encode(self) -> bytes:
        """The message."""
        return json.dumps({"hello": asdict(self)}, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, message: bytes) -> Hello:
        """Reads the message of a peer that may be hostile.

        Raises:
            OtherVersionError: It is of another version.
            WireError: It is no hello; the text names the field.
        """
        body = _json_object(message, "hello")
        if (version := _count(body.get("version"), "version")) != VERSION:
            raise OtherVersionError(f"hello.version must be {VERSION}, it is {version}")
        pipeline = body.pop("pipeline", None)
        if not isinstance(pipeline, dict):
            raise WireError(f"hello.pipeline must be an object, it is {pipeline!r:.80}")
        try:
            hello = cls(
                pipeline=PipelinePlace(
                    schedule=_text(pipeline["schedule"], "pipeline.schedule"),
                    stage_count=_count(pipeline["stage_count"], "pipeline.stage_count", 1, 65535),
                    microbatches=_count(pipeline["microbatches"], "pipeline.microbatches", 1, 65535),
                    stages=_counts(pipeline["stages"], "pipeline.stages"),
                    ranks=_counts(pipeline["ranks"], "pipeline.ranks"),
                ),
                rank=_count(body["rank"], "rank"),
                local_rank=_count(body["local_rank"], "local_rank"),
                world_size=_count(body["world_size"], "world_size", 1),
                attempt=_count(body["attempt"], "attempt"),
                gpu_uuid=None if body["gpu_uuid"] is None else _text(body["gpu_uuid"], "gpu_uuid"),
                markers=_text(body["markers"], "markers"),
                data=_count(body["data"], "data"),
                tensor=_count(body["tensor"], "tensor"),
                data_parallel=_count(body["data_parallel"], "data_parallel", 1),
                tensor_parallel=_count(body["tensor_parallel"], "tensor_parallel", 1),
                framework=_text(body.get("framework", ""), "framework", MOST_TEXT),
                lacks=_text(body.get("lacks", ""), "lacks", MOST_TEXT),
            )
        except KeyError as missing:
            raise WireError(f"hello.{missing.args[0]} is missing") from None
        if hello.markers not in ("stream", "host"):
            raise WireError(f"hello.markers must be stream or host, it is {hello.markers!r:.80}")
        if hello.rank >= hello.world_size:
            raise WireError(f"hello.rank must be below world_size {hello.world_size}, it is {hello.rank}")
        if not hello.pipeline.stages or max(hello.pipeline.stages) >= hello.pipeline.stage_count:
            raise WireError(
                f"hello.pipeline.stages must name stages below {hello.pipeline.stage_count}, "
                f"they are {hello.pipeline.stages!r:.80}"
            )
        return hello


@dataclass(frozen=True, slots=True)
class OldPython:
    """What a process says in place of a hello, by a module of `bootstrap` that its Python can run."""

    version: str
    """Of its Python, such as 3.8."""
    needed: str
    """The oldest that the trainer runs on."""

    def encode(self) -> bytes:
        """The message."""
        return f"JPV1 {self.version} {self.needed}".encode()

    @staticmethod
    def is_meant(message: bytes) -> bool:
        """Whether the message begins as one."""
        return message.startswith(b"JPV1")

    @classmethod
    def decode(cls, message: bytes) -> OldPython:
        """Reads the message of a peer that may be hostile.

        Raises:
            WireError: It is none.
        """
        match = _OLD_PYTHON.fullmatch(message)
        if match is None:
            raise WireError(f"two versions of Python were expected, not {message[:40]!r}")
        return cls(match[1].decode(), match[2].decode())


@dataclass(frozen=True, slots=True)
class Reply:
    """The agent's answer."""

    accepted: bool
    reason: str = ""
    final: bool = False
    """Whether a rank that isn't accepted need not ask again."""
    wants_process: bool = False
    """Whether a rank that is accepted is asked for its process."""

    def encode(self) -> bytes:
        """The message."""
        return json.dumps({"reply": asdict(self)}, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, message: bytes) -> Reply:
        """Reads the message.

        Raises:
            WireError: It is no reply.
        """
        body = _json_object(message, "reply")
        reason = body.get("reason", "")
        if not isinstance(reason, str):
            raise WireError(f"reply.reason must be a text, it is {reason!r:.80}")
        return cls(
            accepted=body.get("accepted") is True,
            reason=reason[:_REASON_CHARACTERS],
            final=body.get("final") is True,
            wants_process=body.get("wants_process") is True,
        )


@dataclass(frozen=True, slots=True)
class InstructionSpan:
    """When one instruction ran on the GPU, in seconds from the begin of its step.

    A pair has the stage and microbatch of its forward; those of its backward are `back`.
    """

    kind: str
    stage: int
    microbatch: int
    begin_s: float
    end_s: float
    back: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class IterationRecord:
    """One training step as the GPU ran it."""

    iteration: int
    end_s: float
    """End of the step on the stream, seconds from its begin."""
    period_s: float
    """Seconds from the begin of this step to the begin of the next training step; 0 where not known."""
    spans: tuple[InstructionSpan, ...] = field(default=())

    def encode(self) -> bytes:
        """The message."""
        packed = [
            _SPAN.pack(ord(span.kind), *place, span.begin_s, span.end_s)
            for span in self.spans
            for place in ((span.stage, span.microbatch), span.back)[: 1 + (span.kind == PAIR)]
        ]
        return _RECORD.pack(_RECORD_TAG, self.iteration, self.end_s, self.period_s, len(packed)) + b"".join(packed)

    @classmethod
    def decode(cls, message: bytes) -> IterationRecord:
        """Reads the message of a peer that may be hostile.

        Raises:
            WireError: It is no record.
        """
        if len(message) < _RECORD.size or message[:4] != _RECORD_TAG:
            raise WireError(f"an iteration record starts with {_RECORD_TAG!r}, this starts with {message[:4]!r}")
        _, iteration, end_s, period_s, count = _RECORD.unpack_from(message)
        if len(message) != _RECORD.size + count * _SPAN.size:
            raise WireError(f"a record of {count} instructions has a wrong length, {len(message)} bytes")
        if not (0 <= end_s < 1e6 and 0 <= period_s < 1e6):
            raise WireError(f"a record's times must be from 0 to 1e6 s, they are {end_s} and {period_s}")
        spans = []
        places = _SPAN.iter_unpack(message[_RECORD.size :])
        for kind, stage, microbatch, begin_s, end in places:
            if (chr(kind) not in KINDS and chr(kind) != PAIR) or not -1e6 < begin_s <= end < 1e6:
                raise WireError(f"instruction {chr(kind)!r} of microbatch {microbatch} ran {begin_s} to {end} s")
            back = (0, 0)
            if chr(kind) == PAIR:
                of, *back_place, also_begin_s, also_end = next(places, (0, 0, 0, 0.0, 0.0))
                if (of, also_begin_s, also_end) != (kind, begin_s, end):
                    raise WireError(f"the pair with the forward of microbatch {microbatch} has no backward")
                back = back_place[0], back_place[1]
            spans.append(InstructionSpan(chr(kind), stage, microbatch, begin_s, end, back))
        return cls(iteration, end_s, period_s, tuple(spans))


def _json_object(message: bytes, name: str) -> dict[str, Any]:
    if len(message) > MAX_MESSAGE_BYTES:
        raise WireError(f"{name} must have at most {MAX_MESSAGE_BYTES} bytes, it has {len(message)}")
    try:
        body = json.loads(message.decode())
    except (ValueError, RecursionError):
        raise WireError(f"{name} must be JSON, it starts with {message[:40]!r}") from None
    if not isinstance(body, dict) or not isinstance(body.get(name), dict):
        raise WireError(f"a message with an object {name!r} was expected")
    inner: dict[str, Any] = body[name]
    return inner


def _count(value: object, name: str, least: int = 0, most: int = 2**31) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise WireError(f"hello.{name} must be a whole number from {least} to {most}, it is {value!r:.80}")
    return value


def _counts(value: object, name: str) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > 65536:
        raise WireError(f"hello.{name} must be a list, it is {value!r:.80}")
    return tuple(_count(item, name) for item in value)


def _text(value: object, name: str, most: int = 256) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise WireError(f"hello.{name} must be a text of at most {most} characters, it is {value!r:.80}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise WireError(f"hello.{name} must be a text that UTF-8 has, it is {value!a:.80}")
    return value
