"""What a caller hands in, held against the types that are announced: a sentence where Python would raise deep inside.

`float` takes any real number, `int` any whole one (numpy's too), a `Sequence` anything that has a length and an order;
`bool` is neither number, and a text is no list.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import fields
from functools import cache, wraps
from inspect import signature
from numbers import Integral, Real
from reprlib import Repr
from types import NoneType, UnionType
from typing import Any, Final, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from joulepath_planner.errors import ArgumentError

__all__ = ["LONGEST_S", "check_fields", "checked", "fits", "quoted"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
LONGEST_S: Final = 86_400.0
"""No lag, delay or deadline is over a day: such a figure is of another unit."""
_MOST_SHOWN: Final = 80
_SHOWN: Final = Repr()
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 60
_WORDS: Final[dict[Any, str]] = {
    float: "a number",
    int: "a whole number",
    bool: "True or False",
    str: "a text",
    NoneType: "None",
}
_NUMBERS: Final[dict[Any, type]] = {float: Real, int: Integral}


def checked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The same function; arguments of other types than it announces are refused with an `ArgumentError`."""
    known = signature(function)

    @wraps(function)
    def asked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        for name, value in known.bind(*args, **kwargs).arguments.items():
            _check(name, value, _hints(function).get(name, Any))
        return function(*args, **kwargs)

    return asked


def check_fields(made: Any) -> None:
    """Hold the fields of a dataclass against their types.

    Raises:
        ArgumentError: One is of another type.
    """
    for field in fields(made):
        _check(field.name, getattr(made, field.name), _hints(made.__class__)[field.name])


def fits(value: object, hint: Any) -> bool:
    """Whether a value is of the type that a hint means; what is in a collection is looked at as well."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if hint in _NUMBERS:
        return isinstance(value, _NUMBERS[hint]) and not isinstance(value, bool)
    if origin is None:
        return hint is Any or isinstance(value, hint)
    if issubclass(origin, Mapping):
        key, item = inner
        return isinstance(value, Mapping) and all(fits(a, key) and fits(b, item) for a, b in value.items())
    if issubclass(origin, Collection):
        return isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping) and _hold(value, hint)
    return isinstance(value, origin)


def _hold(values: Collection[object], hint: Any) -> bool:
    inner = get_args(hint)
    if get_origin(hint) is tuple and inner[-1] is not Ellipsis:
        return len(values) == len(inner) and all(map(fits, values, inner))
    return all(fits(one, inner[0]) for one in values)


def quoted(value: object) -> str:
    """A value as it is shown in a sentence: cut where it is long or deep."""
    shown = _SHOWN.repr(value)
    return shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}..."


def _check(name: str, value: object, hint: Any) -> None:
    if not fits(value, hint):
        raise ArgumentError(f"{name} is {quoted(value)}; it must be {_told(hint)}.")


def _told(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_told, inner))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is not None and issubclass(origin, Mapping):
        return f"a mapping of {_told(inner[0])} to {_told(inner[1])}"
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"({', '.join(map(_told, inner))})"
    if origin is not None and issubclass(origin, Collection):
        return f"a list, each {_told(inner[0])}"
    name = getattr(origin or hint, "__name__", str(hint))
    return _WORDS.get(hint) or f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


@cache
def _hints(of: Hashable) -> dict[str, Any]:
    return get_type_hints(of)
