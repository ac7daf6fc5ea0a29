"""The shared page in the hands of whoever: torn, wrapped, rewinding, written while it is read."""

from __future__ import annotations

import mmap
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import strategies as st

from joulepath_clocks.ranks.page import SharedPage
from joulepath_trainer.memory import OwnPage
from joulepath_trainer.wire.page import (
    ENTRY,
    MARKER_OFFSET,
    PAGE_BYTES,
    RING,
    RING_OFFSET,
    MarkerEntry,
    MarkerEvent,
    PageReader,
    following,
)
from joulepath_trainer.wire.protocol import KINDS, PAIR
from tests.fuzz.drawing import fuzz

SHARE: Final = 0.3
AT_ONCE: Final = 256
GREATEST: Final = 2**32 - 1
Meaning = tuple[MarkerEvent, int, str, int, int]
meanings = st.tuples(
    st.sampled_from(MarkerEvent),
    st.integers(0, GREATEST),
    st.sampled_from(["", *KINDS, PAIR]),
    *[st.integers(0, 65535)] * 2,
)


def at(sequence: int) -> int:
    return RING_OFFSET + sequence % RING * ENTRY.size


def meaning(entry: MarkerEntry) -> Meaning:
    return entry.event, entry.iteration, entry.kind, entry.stage, entry.microbatch


def spoil(page: memoryview, chance: random.Random) -> None:
    """Does anything to it, mostly where it is read next."""
    (marker,) = page[MARKER_OFFSET : MARKER_OFFSET + 4].cast("I")
    match chance.randrange(4):
        case 0:
            where = chance.randrange(PAGE_BYTES)
            piece = chance.randbytes(min(chance.choice((1, 4, 16, 500)), PAGE_BYTES - where))
            page[where : where + len(piece)] = piece
        case 1:  # on, back, far ahead, by a bit
            step = chance.choice((1, 2, 255, 256, 257, RING, -1, -RING, 1 << chance.randrange(32), -marker))
            page[MARKER_OFFSET : MARKER_OFFSET + 4] = ((marker + step) % 2**32).to_bytes(4, "little")
        case 2:
            sequence = (marker + chance.randrange(-2, 300)) % 2**32
            event, kind = chance.choice((0, 1, 2, 3, 4, 5, 255)), chance.choice((0, *b"FBIWP", 1, 255))
            fields = (sequence, chance.getrandbits(32), event, kind, *(chance.getrandbits(16) for _ in range(3)))
            ENTRY.pack_into(page, at(sequence), *fields)
        case 3:  # half of an entry
            where = at(marker + chance.randrange(-1, 3))
            size = chance.randrange(ENTRY.size)
            page[where : where + size] = chance.randbytes(size)


def test_whatever_a_rank_does_to_its_page_the_agent_takes_few_entries_that_make_sense() -> None:
    def check(markers: list[Meaning], chance: random.Random) -> None:
        own = OwnPage()
        shared, page = SharedPage(own.descriptor), memoryview(mmap.mmap(own.descriptor, PAGE_BYTES))
        os.close(own.descriptor)
        for one in markers:
            own.writer.pass_marker(own.writer.announce(*one))
        for _ in range(300):
            spoil(page, chance)
            if (marker := shared.news()) is None:
                continue
            entries = shared.take(marker)
            assert shared.news() in (None, PageReader(page).marker)
            if entries is None:
                continue
            numbers = [entry.sequence for entry in entries]
            assert numbers[-1] == marker
            assert all(following(one) == after for one, after in pairwise(numbers))
            assert 1 <= len(entries) <= AT_ONCE
            assert all(
                entry.event in MarkerEvent and (not entry.kind or entry.kind in KINDS + PAIR) for entry in entries
            )

    fuzz(check, st.lists(meanings, max_size=5), SHARE)


def test_an_entry_that_is_overwritten_in_part_means_what_it_meant_or_nothing() -> None:
    def check(both: tuple[Meaning, Meaning, int], chance: random.Random) -> None:
        before, after, first = both
        page, later = memoryview(bytearray(PAGE_BYTES)), memoryview(bytearray(PAGE_BYTES))
        reader = PageReader(page)
        old, new = first, first + RING
        for where, sequence, (event, iteration, kind, stage, microbatch) in ((page, old, before), (later, new, after)):
            code = ord(kind) if kind else 0
            ENTRY.pack_into(where, at(sequence), sequence, iteration, event, code, stage, microbatch, 0)
        for index in range(at(new), at(new) + ENTRY.size):
            page[index] = later[index]
            if (entry := reader.entry(old)) is not None:
                assert meaning(entry) == before
        found = reader.entry(new)
        assert found is not None
        assert meaning(found) == after

    fuzz(check, st.tuples(meanings, meanings, st.integers(1, GREATEST - RING)), SHARE / 4)


WRITES: Final = """
import mmap, sys
from joulepath_trainer.wire.page import PAGE_BYTES, MarkerEvent, PageWriter
writer = PageWriter(memoryview(mmap.mmap(int(sys.argv[1]), PAGE_BYTES)))
print(flush=True)
while True:
    sequence = writer.announce(MarkerEvent.BEGIN, 0, "F", 0, 0)
    again = writer.announce(MarkerEvent.END, sequence + 1, "W", sequence + 1 & 0xFFFF, sequence + 1 & 0xFFFF)
    writer.pass_marker(again)
"""
"""Every other marker is told by its sequence."""


@pytest.fixture
def written() -> Iterator[PageReader]:
    """A page into which another process writes as fast as it can."""
    descriptor = os.memfd_create("page")
    os.ftruncate(descriptor, PAGE_BYTES)
    page = memoryview(mmap.mmap(descriptor, PAGE_BYTES))
    command = [sys.executable, "-c", WRITES, str(descriptor)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=(descriptor,)) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        yield PageReader(page)
        writer.kill()
    os.close(descriptor)


def test_a_page_that_is_written_while_it_is_read_goes_on_and_an_entry_is_whole(written: PageReader) -> None:
    last = looked = 0
    while looked < 100_000 or last < 10 * RING:
        looked += 1
        marker = written.marker
        assert marker >= last
        last = marker
        # An entry that is just being overwritten: one that is a ring old.
        sequence = marker - RING + 2 * (looked % 3)
        if sequence > 0 and (entry := written.entry(sequence)) is not None:
            whole = (MarkerEvent.END, sequence, "W", sequence & 0xFFFF, sequence & 0xFFFF)
            assert meaning(entry) == whole
