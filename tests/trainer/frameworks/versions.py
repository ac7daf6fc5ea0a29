"""What tests of frameworks share: trainings in an environment of their own, and what must be told of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import pytest

import framework_table
import frameworks
from agent_double import ConnectedRank
from joulepath_trainer.wire.page import Ending, MarkerEvent
from joulepath_trainer.wire.protocol import PAIR
from tests.trainer.conftest import Nursery, begun

__all__ = ["assert_passes", "assert_told", "iterations_that", "nursery_of", "of_the_table", "told_by"]

SIDES = (MarkerEvent.BEGIN, MarkerEvent.END)


def nursery_of(environment: str, scenarios: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Runs the scenarios of this module in that environment; skips where it can't be made."""
    try:
        python = frameworks.environment(environment)
    except frameworks.NoPythonError as error:
        pytest.skip(str(error))
    yield from begun(tmp_path_factory, f"tests.trainer.frameworks.{scenarios}", str(python))


def of_the_table(kind: str, environment: str = "") -> pytest.MarkDecorator:
    """Runs a test for each row of docs/frameworks.md's table of that kind, and the fixture of this name for its
    environment."""
    rows = framework_table.rows(kind)
    if not environment:
        return pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in rows])
    both = [pytest.param(row.environment, row, id=row.name) for row in rows]
    return pytest.mark.parametrize((environment, "row"), both, indirect=[environment])


def iterations_that(ended: Ending, rank: ConnectedRank) -> set[int]:
    """Those of which a marker says that they ended so."""
    ends = [entry for entry in rank.entries() if entry.event is MarkerEvent.STEP_END]
    return {entry.iteration for entry in ends if entry.ending == ended}


def _marked(rank: ConnectedRank) -> dict[int, list[tuple[MarkerEvent, str, int, int]]]:
    """The markers of each iteration, but for those that part it from what follows."""
    entries = (entry for entry in rank.entries() if entry.ending != Ending.PARTED)
    return {
        number: [(e.event, e.kind, e.stage, e.microbatch) for e in group]
        for number, group in groupby(entries, lambda entry: entry.iteration)
    }


def assert_told(rank: ConnectedRank, orders: Sequence[Sequence[Sequence[Any]]]) -> None:
    """What a rank told of each iteration is what the model itself saw: kind, stage and microbatch, in their order, and
    of a pair those of its backward."""
    marked = _marked(rank)
    assert marked
    for number, events in marked.items():
        sides = (MarkerEvent.BEGIN, MarkerEvent.END)
        assert events[1:-1] == [(side, *what[:3]) for what in orders[number] for side in sides], number
        assert [events[0][0], events[-1][0]] == [MarkerEvent.STEP_BEGIN, MarkerEvent.STEP_END]
    assert rank.records
    for record in rank.records:
        told = [[s.kind, s.stage, s.microbatch, *(s.back if s.kind == PAIR else ())] for s in record.spans]
        assert told == orders[record.iteration]
        times = [time for span in record.spans for time in (span.begin_s, span.end_s)]
        assert times == sorted(times)
        assert times[-1] <= record.end_s


def told_by(rank: ConnectedRank) -> dict[int, list[list[Any]]]:
    """Kind, stage and microbatch of all that ran in each iteration of which there is a record; the markers say the
    same, in the same order."""
    marked = _marked(rank)
    found = {}
    for record in rank.records:
        spans = [[one.kind, one.stage, one.microbatch] for one in record.spans]
        assert marked[record.iteration][1:-1] == [(side, *what) for what in spans for side in SIDES]
        times = [time for one in record.spans for time in (one.begin_s, one.end_s)]
        assert times == sorted(times)
        assert not times or times[-1] <= record.end_s
        found[record.iteration] = spans
    return found


def assert_passes(rank: ConnectedRank, orders: Sequence[Any], *lacking: int) -> None:
    """All iterations but the first few, which aren't observed, are told as they ran, but for those `lacking`."""
    found = told_by(rank)
    first = 3 + min(rank.hello.rank, 1)  # all but rank 0 learn the attempt's number a step later
    assert set(found) == set(range(first, len(orders))) - set(lacking)
    for number, order in found.items():
        assert order == orders[number], number
