"""JSON as one string of an object, compressed: the API server's work for an object is that for its fields.

Whoever reads one bounds what comes of it, and checks it as the API server would.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from typing import Any, Final

__all__ = ["MOST_UNPACKED_BYTES", "packed", "unpacked"]

MOST_UNPACKED_BYTES: Final = 2 * 2**20
"""Of the JSON that a string is made of: measurements of 8 ranks with 1,024 instructions have 1.7 MB."""
_JSON: Final = "json+zlib:"
"""Before what is packed so. Readers refuse what they don't know."""


def packed(plain: Any) -> str:
    """As a string.

    Raises:
        ValueError: It is more than is unpacked.
    """
    body = json.dumps(plain, separators=(",", ":")).encode()
    if len(body) > MOST_UNPACKED_BYTES:
        raise ValueError(f"{len(body)} bytes are more than {MOST_UNPACKED_BYTES}")
    return _JSON + base64.b64encode(zlib.compress(body)).decode()


def unpacked(text: str) -> bytes:
    """The JSON of such a string.

    Raises:
        ValueError: It is none, is of another form, or holds too much.
    """
    if not text.startswith(_JSON):
        raise ValueError(f"packed is of a form that isn't known ({text[:16]!r}): upgrade who reads it")
    unpacking = zlib.decompressobj()
    try:
        body = unpacking.decompress(base64.b64decode(text.removeprefix(_JSON), validate=True), MOST_UNPACKED_BYTES)
    except (zlib.error, binascii.Error) as error:
        raise ValueError(f"packed can't be unpacked: {error}") from None
    if not unpacking.eof:
        raise ValueError(f"packed is cut off, or holds more than {MOST_UNPACKED_BYTES} bytes")
    return body
