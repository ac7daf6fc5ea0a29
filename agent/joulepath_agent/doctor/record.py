"""The doctor's record: what it found, as a JSON file in the state folder that the agent reads.

It holds for the driver and the GPUs (UUID and model) that it names: with another driver, lags are others. The values
of `figures` are its schema: what doesn't fit them is no record.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from joulepath_agent.doctor.figures import Examined
from joulepath_warden.wire import DOCTOR_FOLDER

__all__ = ["Record", "RecordError"]

_NAME: Final = "record.json"
_VERSION: Final = 1
_MOST_BYTES: Final = 4 << 20


class RecordError(ValueError):
    """A file that is no record, with the field that isn't right; or one that doesn't hold any more."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a doctor found on a node."""

    version: int
    joulepath: str
    driver: str
    taken_at: str
    """UTC, ISO 8601."""
    seconds: float
    """How long it took."""
    gpus: tuple[Examined, ...]

    @classmethod
    def of(cls, joulepath: str, driver: str, taken_at: str, seconds: float, gpus: Sequence[Examined]) -> Record:
        """A record of this version of the format."""
        return cls(_VERSION, joulepath, driver, taken_at, seconds, tuple(gpus))

    @classmethod
    def read(cls, state_dir: Path) -> Record | None:
        """The record of a node; None where there is none.

        Raises:
            RecordError: It can't be read, or isn't one.
        """
        path = state_dir / DOCTOR_FOLDER / _NAME
        try:
            with path.open("rb") as file:
                text = file.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RecordError(f"the doctor's record can't be read: {error}") from None
        if len(text) > _MOST_BYTES:
            raise RecordError(f"{path} is over {_MOST_BYTES} bytes long: run joulepath-agent doctor again")
        try:
            body = json.loads(text)
            version = body.get("version") if isinstance(body, dict) else None
            if version != _VERSION:
                raise RecordError(f"version is {version!r}, it must be {_VERSION}")
            return typing.cast(Record, _decoded(cls, body, "the record"))
        except (ValueError, RecursionError) as error:
            raise RecordError(f"{path} isn't a doctor's record ({error}): run joulepath-agent doctor again") from None

    def after(self, before: Record | None) -> Record:
        """With what an earlier one has of GPUs that weren't examined, or not to the end, if the driver is the same."""
        if before is None or before.driver != self.driver:
            return self
        old = {one.uuid: one for one in before.gpus}
        fresh = {one.uuid: one for one in self.gpus if "ended" not in one.without or one.uuid not in old}
        return dataclasses.replace(self, gpus=tuple({**old, **fresh}.values()))

    def write(self, state_dir: Path) -> Path:
        """Writes it, at once whole; where to.

        Raises:
            OSError: It can't be written.
        """
        path = state_dir / DOCTOR_FOLDER / _NAME
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_name(f".{_NAME}.{os.getpid()}")
        fresh.write_text(json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False) + "\n")
        fresh.replace(path)
        return path

    def examined(self, uuid: str, model: str, driver: str) -> Examined | None:
        """What it found on a GPU; None where it has not examined that one.

        Raises:
            RecordError: It is stale: the driver or the GPU's model is another one now.
        """
        found = next((one for one in self.gpus if one.uuid == uuid), None)
        if found is not None and (self.driver, found.model) != (driver, model):
            raise RecordError(
                f"the doctor examined {uuid} as {found.model} with driver {self.driver}, it is {model} with {driver} "
                "now: run joulepath-agent doctor again"
            )
        return found


def _decoded(kind: Any, value: Any, name: str) -> Any:
    """A value of a type, made of what JSON has for it."""
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise RecordError(f"{name} must be an object, it is {value!r:.60}")
        hints = typing.get_type_hints(kind)
        if odd := sorted(set(value) ^ set(hints)):
            raise RecordError(f"{name} has too little or too much: {', '.join(odd)}")
        return kind(**{key: _decoded(hints[key], value[key], f"{name}.{key}") for key in hints})  # type: ignore[operator]
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else _decoded(inner[0], value, name)
    if origin is tuple and isinstance(value, list):
        return tuple(_decoded(inner[0], one, f"{name}[{at}]") for at, one in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _decoded(inner[1], one, f"{name}.{key}") for key, one in value.items()}
    if kind is float and type(value) is int:
        value = float(value)
    if origin is None and type(value) is kind and (kind not in (int, float) or (math.isfinite(value) and value >= 0)):
        return value
    raise RecordError(f"{name} is {value!r:.60}")
