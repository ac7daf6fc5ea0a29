"""What doctor and load have to agree on, as neither imports the other."""

from __future__ import annotations

from joulepath_agent.doctor import load
from joulepath_load import markers


def test_both_have_the_same_page() -> None:
    for name in ("MARKER_OFFSET", "TIMES_OFFSET", "MOST_WRITES", "PAGE_BYTES"):
        assert getattr(load, name) == getattr(markers, name)
    assert markers.TIMES_OFFSET + 8 * markers.MOST_WRITES <= markers.PAGE_BYTES
