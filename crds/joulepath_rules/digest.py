"""SHA-256 as both sides compute it, by Python's own code.

`hashlib` loads OpenSSL's libcrypto to look for faster ones: 3.5 MiB in each of a node's processes, for a few sums an
hour. It is asked where Python was built without its own, as the standard library's `random` does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Final, Protocol

__all__ = ["sha256"]


class _Sum(Protocol):
    def digest(self) -> bytes: ...
    def hexdigest(self) -> str: ...


def _own() -> Callable[[bytes], _Sum]:
    for name in ("_sha2", "_sha256"):  # of Python 3.12 and newer; of 3.11
        with suppress(ImportError):
            found: Callable[[bytes], _Sum] = import_module(name).sha256
            return found
    from hashlib import sha256

    return sha256


sha256: Final = _own()
