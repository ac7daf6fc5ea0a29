"""The base of every model: how a Python field becomes a field of the API object.

Python names carry short units (`time_s`), API names the words Kubernetes uses (`timeSeconds`). Values are frozen:
an object read from the cluster is a fact, a new one is written for a new fact.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["GROUP", "UID", "VERSION", "Contract", "Hash", "Name", "Text", "api_name", "list_by", "rule"]

GROUP: Final = "joulepath.dev"
VERSION: Final = "v1alpha1"

# Every string has a length: the API server estimates the cost of a rule from it, and etcd stays small.
Name = Annotated[str, Field(max_length=253)]
UID = Annotated[str, Field(max_length=128)]
Hash = Annotated[str, Field(max_length=64)]
Text = Annotated[str, Field(max_length=32768)]

_UNITS: Final = {"s": "Seconds", "j": "Joules", "w": "Watts", "mhz": "MHz"}
_INITIALS: Final = {"uid": "UID", "uuid": "UUID", "mhz": "MHz"}


def api_name(python_name: str) -> str:
    """The API's name of a field: `clocks_mhz` -> `clocksMHz`, `tail_s` -> `tailSeconds`."""
    first, *rest = python_name.split("_")
    if rest and rest[-1] in _UNITS:
        rest[-1] = _UNITS[rest[-1]]
    return first + "".join(_INITIALS.get(word, word[0].upper() + word[1:]) for word in rest)


def list_by(*keys: str) -> dict[str, Any]:
    """Schema of a list whose entries are told apart by these fields; the API server refuses two with the same."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def rule(condition: str, message: str) -> dict[str, Any]:
    """A validation in CEL. `message` is a sentence with the remedy; field and value the API server puts before it.

    A message that begins with a quote is a CEL expression, for values that the API server would not show. Numbers in
    one are refused: the API server takes their length for unbounded.
    """
    return {"rule": condition, "messageExpression" if message.startswith("'") else "message": message}


class Contract(BaseModel):
    """A part of an API object. Unknown fields are ignored, so that an older reader stands a newer writer."""

    model_config = ConfigDict(
        alias_generator=api_name,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    def to_api(self) -> dict[str, Any]:
        """The JSON of the API object; what is `None` is left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @classmethod
    def from_api(cls, body: Any) -> Self:
        """Reads the JSON of an API object.

        Raises:
            pydantic.ValidationError: A field is missing or out of its bounds; the message names it.
        """
        return cls.model_validate(body)
