"""The record: what is written is read again, and what is no record or holds no more is told from one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joulepath_agent.doctor.figures import (
    Collectives,
    Counter,
    Examined,
    Killed,
    Markers,
    Page,
    Pair,
    Permission,
    Settled,
    Spread,
    Waiting,
)
from joulepath_agent.doctor.record import Record, RecordError
from joulepath_warden.wire import DOCTOR_FOLDER

SPREAD = Spread(0.01, 0.02, 20)
FULL = Examined(
    "GPU-1",
    "H200",
    permission=Permission(True, "", SPREAD),
    pairs=(Pair(900, 0, True, 1400, (0.01, 0.02), 1), Pair(0, 900, False, 900, (0.03,), 0)),
    settled=Settled(1400, 1385, 1410, 1410, 380.0, 400.0, 400.0, ("power cap",), "matrix products"),
    counter=Counter(SPREAD, 0.001, SPREAD),
    waiting=(Waiting(0, 84.0, 1.0),),
    page=Page(199, 200, True, SPREAD),
    markers=Markers(SPREAD, SPREAD, SPREAD, SPREAD, 1e-6),
    killed=Killed(0.02, 705),
    collectives=Collectives("NCCL 2.27.3", 64 << 20, 1290, 705, SPREAD, SPREAD, SPREAD, 0.05),
)
EMPTY = Examined("GPU-2", "H200", without={"load": "this Python has no torch"})
RECORD = Record.of("0.1.0", "580.1", "2026-01-01T00:00:00+00:00", 90.5, [FULL, EMPTY])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert Record.read(tmp_path) is None
    RECORD.write(tmp_path)
    assert Record.read(tmp_path) == RECORD
    assert (FULL.lags_s(up=True), FULL.lags_s(up=False)) == ((0.01, 0.02), (0.03,))


def test_lags_are_told_by_the_clock_switched_to_whichever_was_before() -> None:
    pairs = (
        Pair(900, 0, True, 1400, (0.01, 0.02), 1),
        Pair(705, 900, True, 900, (0.05,), 0),
        Pair(705, 0, True, 1400, (0.03,), 0),
        Pair(705, 1100, True, 1100, (), 3),
        Pair(0, 900, False, 900, (0.04,), 0),
    )
    found = replace(FULL, pairs=pairs)
    assert found.lags_by_target(up=True) == ((0, (0.01, 0.02, 0.03)), (900, (0.05,)))
    assert found.lags_by_target(up=False) == ((900, (0.04,)),)
    assert found.lags_s(up=True) == (0.01, 0.02, 0.03, 0.05)


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (lambda body: body.update(version=2), "version is 2"),
        (lambda body: body.pop("driver"), "driver"),
        (lambda body: body.update(more=1), "more"),
        (lambda body: body.update(seconds=float("nan")), "seconds"),
        (lambda body: body["gpus"][0].update(uuid=7), r"gpus\[0\].uuid is 7"),
        (lambda body: body["gpus"][0]["pairs"][0].update(lags_s=[-1.0]), r"pairs\[0\].lags_s\[0\] is -1.0"),
        (lambda body: body["gpus"][0]["pairs"][0].update(up=1), r"pairs\[0\].up is 1"),
        (lambda body: body["gpus"][0].update(pairs={}), "pairs"),
        (lambda body: body["gpus"][1].update(without={"load": None}), "without.load"),
        (lambda body: body.update(gpus=[[]]), r"gpus\[0\] must be an object"),
    ],
)
def test_what_is_no_record_says_which_field(tmp_path: Path, spoil: Callable[[dict[str, Any]], Any], field: str) -> None:
    path = RECORD.write(tmp_path)
    body = json.loads(path.read_text())
    spoil(body)
    path.write_text(json.dumps(body))
    with pytest.raises(RecordError, match=field):
        Record.read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b" " * (5 << 20)])
def test_any_other_file_is_no_record(tmp_path: Path, content: bytes) -> None:
    RECORD.write(tmp_path).write_bytes(content)
    with pytest.raises(RecordError, match="run joulepath-agent doctor again"):
        Record.read(tmp_path)


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / DOCTOR_FOLDER / "record.json").mkdir(parents=True)
    with pytest.raises(RecordError, match="can't be read"):
        Record.read(tmp_path)


def test_a_later_record_keeps_what_it_has_not_examined_to_the_end() -> None:
    again = replace(FULL, permission=None)
    stopped = replace(EMPTY, without={"ended": "a process computes on it"})
    third = replace(stopped, uuid="GPU-3")
    later = replace(RECORD, gpus=(again, stopped, third))
    assert later.after(RECORD).gpus == (again, EMPTY, third)
    assert replace(RECORD, gpus=(third,)).after(RECORD).gpus == (FULL, EMPTY, third)
    assert later.after(replace(RECORD, driver="580.2")) == later.after(None) == later


def test_it_holds_for_its_gpus_with_their_driver() -> None:
    assert RECORD.examined("GPU-1", "H200", "580.1") == FULL
    assert RECORD.examined("GPU-3", "H200", "580.1") is None
    for model, driver in (("H200", "580.2"), ("H100", "580.1"), ("H200", "")):
        with pytest.raises(RecordError, match="run joulepath-agent doctor again"):
            RECORD.examined("GPU-1", model, driver)
