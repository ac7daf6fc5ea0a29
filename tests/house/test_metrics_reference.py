"""The metrics reference says what the code serves."""

from __future__ import annotations

import metrics_reference


def test_the_reference_is_that_of_the_tables() -> None:
    assert metrics_reference.PATH.read_text() == metrics_reference.text(), "write it anew: make reference"
