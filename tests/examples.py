"""How many examples of a property are drawn: of an inner loop's a quarter."""

from __future__ import annotations

from hypothesis import settings

__all__ = ["examples"]


def examples(count: int) -> settings:
    """So many, or the share that the profile of this run draws (`tests/conftest.py`)."""
    assert settings.default is not None
    return settings(max_examples=max(4, count * settings.default.max_examples // 100))
