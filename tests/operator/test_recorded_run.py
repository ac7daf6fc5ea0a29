"""A run of `make demo` as its agents reported it: eight ranks on virtual GPUs in published seconds, default clocks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joulepath_crds import EnergyProfileSpec, Granularity, RankReport
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.request import PlanRequest, PlanResult
from joulepath_operator.figures.timing.delays import measure_delays
from joulepath_operator.planning.compute import compute

RUN: Any = json.loads((Path(__file__).parent / "data" / "recorded-run.json").read_text())


@pytest.fixture(scope="module")
def asked() -> PlanRequest:
    profile = EnergyProfileSpec.from_api(RUN["profile"])
    ranks = tuple(RankReport.from_api(rank) for rank in RUN["ranks"])
    return PlanRequest(
        inputs="recorded",
        profile=profile,
        orders=tuple(tuple(f"{rank.stages[0]}:{label}" for label in rank.order) for rank in ranks),
        delays=measure_delays(Gang(1, len(ranks), ranks, {}, {}), profile.topology),
        control_time_s=profile.iteration_time_s,
        max_slowdown=0.0,
        granularity=Granularity.AUTO,
        lag=profile.lag,
        supported_clocks_mhz=tuple(range(210, 1411, 15)),
    )


@pytest.fixture(scope="module")
def made(asked: PlanRequest) -> PlanResult:
    result = compute(asked)
    assert isinstance(result, PlanResult)
    return result


@pytest.mark.slow
def test_the_model_of_its_default_clocks_takes_what_it_took(asked: PlanRequest, made: PlanResult) -> None:
    assert made.t_min_s == pytest.approx(asked.control_time_s, rel=0.001)
    assert made.predicted_savings > 0.13
    assert made.plan_time_s == pytest.approx(asked.control_time_s, rel=0.001)


@pytest.mark.slow
def test_a_reserve_that_is_asked_for_is_kept_and_costs_savings(asked: PlanRequest, made: PlanResult) -> None:
    careful = compute(replace(asked, reserve=0.05))
    assert isinstance(careful, PlanResult)
    assert careful.stages != made.stages
    assert 0 < careful.predicted_savings < made.predicted_savings - 0.002
    assert careful.plan_time_s == pytest.approx(asked.control_time_s, rel=0.001)
