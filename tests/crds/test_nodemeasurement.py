"""What nodes measure survives being packed; what is none of it is refused, and costs nothing."""

from __future__ import annotations

import base64
import resource
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_crds import (
    MOST_UNPACKED_BYTES,
    Contract,
    Measurements,
    NodeMeasurementStatus,
    NodeReportStatus,
    facts_of,
    joined,
    learnt_from,
    measured_of,
    state_of,
)
from joulepath_crds.schema import structural
from tests.crds.test_contract import instances
from tests.examples import examples


def packed(body: bytes) -> str:
    """As it would be, whatever it is."""
    return "json+zlib:" + base64.b64encode(zlib.compress(body)).decode()


def rounded(value: Any) -> Any:
    """The same with seven digits."""
    match value:
        case float():
            return float(f"{value:.7g}")
        case Contract():
            return value.from_api(rounded(value.to_api()))
        case dict():
            return {name: rounded(one) for name, one in value.items()}
        case list():
            return [rounded(one) for one in value]
        case _:
            return value


@examples(30)
@given(instances(structural(Measurements)))
def test_what_was_measured_survives_with_seven_digits(body: dict[str, Any]) -> None:
    measured = Measurements.from_api(body)
    assert Measurements.unpacked(measured.packed()) == rounded(measured)


@examples(30)
@given(instances(structural(NodeReportStatus)))
def test_the_three_parts_of_a_report_are_all_of_it(body: dict[str, Any]) -> None:
    report = rounded(NodeReportStatus.from_api(body))
    ranks = [(job.job_uid, job.attempt, rank.pod_uid, rank.rank) for job in report.jobs for rank in job.ranks]
    gpus = [gpu.uuid for gpu in report.gpus]
    lags = [gpu.lag.targets for gpu in report.gpus if gpu.lag]
    facts, state, measured = (part.to_api() for part in (facts_of(report), state_of(report), measured_of(report)))
    for job in state["jobs"]:
        assert not {"order", "timeline", "blocks"} & {name for rank in job["ranks"] for name in rank}
    assert not facts["jobs"]
    again = joined(
        NodeReportStatus.from_api(facts), NodeReportStatus.from_api(state).jobs, Measurements.from_api(measured)
    )
    if len({*ranks}) == len(ranks) and len({*gpus}) == len(gpus) and () not in lags:  # as the API server keeps them
        assert again == report


def test_a_string_of_a_thousand_times_its_size_is_refused_before_it_takes_memory() -> None:
    bomb = packed(b" " * (512 * 2**20) + b"{}")
    assert len(bomb) < 1_000_000
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=f"more than {MOST_UNPACKED_BYTES} bytes"):
        Measurements.unpacked(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 * 1024


@pytest.mark.parametrize(
    "text",
    [
        "json+zlib:!!!!",
        "json+zlib:" + base64.b64encode(b"no stream").decode(),
        packed(b"{}")[:-8],
        packed(b"{"),
        packed(b"[]"),
        packed(b"[" * 100_000),
        packed(b'{"ranks":[{"rank":0}]}'),
        packed(b'{"gpus":[{"uuid":"u","targets":[{"clockMHz":-1}]}]}'),
        "columns:AAAA",
    ],
)
def test_what_is_none_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"packed|validation"):
        Measurements.unpacked(text)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_is_packed_is_read_or_refused(body: bytes) -> None:
    for text in (packed(body), "json+zlib:" + body.decode(errors="replace")):
        try:
            Measurements.unpacked(text)
        except ValueError:
            continue


def test_nothing_was_measured_where_nothing_is_told() -> None:
    assert Measurements.unpacked(NodeMeasurementStatus().packed) == Measurements()


@pytest.mark.parametrize(("data", "tensor"), [(1, 1), (1, 8), (2, 2), (1024, 8), (10**9, 10**9)])
def test_a_few_pipelines_from_all_over_a_job_are_learnt_from(data: int, tensor: int) -> None:
    chosen = learnt_from(data, tensor)
    assert len(set(chosen)) == len(chosen) == min(5, data * tensor)
    assert chosen[0] == (0, 0)
    assert chosen[-1] == (data - 1, tensor - 1)
    assert all(0 <= replica < data and 0 <= peer < tensor for replica, peer in chosen)
