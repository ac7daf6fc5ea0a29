"""SHA-256 is the same whoever computes it, and is computed on each Python."""

from __future__ import annotations

import hashlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_rules import digest


@given(st.binary(max_size=300))
def test_it_is_the_sum_of_openssl(data: bytes) -> None:
    assert digest.sha256(data).digest() == hashlib.sha256(data).digest()


def test_a_python_without_its_own_asks_hashlib(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_sha2", "_sha256"):
        monkeypatch.setitem(sys.modules, name, None)
    assert digest._own() is hashlib.sha256
