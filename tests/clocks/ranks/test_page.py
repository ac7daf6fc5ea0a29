"""The agent's side of a shared page: what is new in it, and what is none of its business."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_clocks.ranks.page import SharedPage
from joulepath_trainer.memory import OwnPage
from joulepath_trainer.wire.page import LAST, PAGE_BYTES, MarkerEvent, PageWriter


@pytest.fixture(scope="module")
def own() -> Iterator[OwnPage]:
    made = OwnPage()
    yield made
    os.close(made.descriptor)


def taken(page: SharedPage) -> list[int] | None:
    """The iterations that are told of by what has been passed since; None where some of it is lost."""
    marker = page.news()
    entries = [] if marker is None else page.take(marker)
    return None if entries is None else [entry.iteration for entry in entries]


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 200))
def test_what_was_enqueued_for_a_connection_before_means_nothing_however_late_it_is_passed(
    own: OwnPage, before: int, late: int, after: int
) -> None:
    old = [own.writer.announce(MarkerEvent.STEP_BEGIN, 1) for _ in range(before)]
    page = SharedPage(own.descriptor)
    for sequence in old[-late:]:
        own.writer.pass_marker(sequence)
        assert page.news() is None
    for _ in range(after):
        new = own.writer.announce(MarkerEvent.STEP_BEGIN, 2)
    own.writer.pass_marker(new)
    assert taken(page) == [2] * after
    assert page.news() is None


@given(st.integers(LAST - 300, LAST), st.integers(1, 250))
def test_numbers_that_begin_anew_are_followed(last: int, count: int) -> None:
    descriptor = OwnPage().descriptor
    writer = PageWriter(memoryview(mmap.mmap(descriptor, PAGE_BYTES)), last - 1)
    writer.pass_marker(writer.announce(MarkerEvent.STEP_BEGIN, 0))
    page = SharedPage(descriptor)
    os.close(descriptor)
    for _ in range(count):
        writer.pass_marker(writer.announce(MarkerEvent.STEP_BEGIN, 3))
    assert taken(page) == [3] * count


def test_a_marker_that_goes_back_is_no_news_and_a_leap_is_lost(own: OwnPage) -> None:
    page = SharedPage(own.descriptor)
    first = [own.writer.announce(MarkerEvent.STEP_BEGIN, 4) for _ in range(3)]
    own.writer.pass_marker(first[-1])
    assert taken(page) == [4, 4, 4]
    own.writer.pass_marker(first[0])
    assert page.news() is None
    for _ in range(300):
        last = own.writer.announce(MarkerEvent.STEP_BEGIN, 5)
    own.writer.pass_marker(last)
    assert taken(page) is None
    own.writer.pass_marker(own.writer.announce(MarkerEvent.STEP_BEGIN, 6))
    assert taken(page) == [6], "from there on it is followed again"
