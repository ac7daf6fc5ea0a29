"""What counts as news of plans, and that a way to the API server that is dead is noticed in time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from joulepath_agent.cluster.api import NodeApi
from joulepath_clocks.ranks.lifetime import TimeToLive
from joulepath_crds import NodeReportStatus
from tests.agent.cluster.api_double import ApiDouble, api_double
from tests.agent.room import wait_until


@pytest.fixture
def double() -> Iterator[ApiDouble]:
    with api_double() as running:
        yield running


@pytest.fixture
def news(double: ApiDouble) -> Iterator[list[Any]]:
    """The plans that an agent was told, whose plans live for four seconds."""
    told: list[Any] = []
    tied = NodeApi(double.connection, "node", "default", plan_time_to_live_s=4.0)
    tied.run(told.append, NodeReportStatus)
    yield told
    tied.stop()


def test_lists_without_any_change_are_news(double: ApiDouble, news: list[Any]) -> None:
    wait_until(lambda: len(news) >= 3, "lists come again and again")
    assert {asked["timeoutSeconds"] for asked in double.watches} == {"1"}, "four in a time to live"


def test_a_watch_that_is_a_black_hole_is_left_for_a_list(double: ApiDouble, news: list[Any]) -> None:
    double.watches_hang = True
    wait_until(lambda: len(double.watches) >= 2, "the watch is opened again")
    assert len(news) >= 2


def test_a_lease_that_is_renewed_is_no_news_of_plans(double: ApiDouble) -> None:
    life = TimeToLive(2.0)
    life.renew(time.monotonic())
    tied = NodeApi(double.connection, "node", "default", plan_time_to_live_s=2.0)
    double.lists_fail = True
    tied.run(lambda _: life.renew(time.monotonic()), NodeReportStatus)
    try:
        wait_until(lambda: double.beats > 0 and double.lists >= 2, "the lease is renewed, and lists fail")
        wait_until(lambda: bool(life.expired(time.monotonic())), "the plans have expired")
        double.lists_fail = False
        wait_until(lambda: not life.expired(time.monotonic()), "there is news again")
    finally:
        tied.stop()


@pytest.mark.parametrize("lives_s", [60.0, 300.0, 900.0, 86400.0])
def test_a_dead_connection_and_a_failed_list_fit_into_every_time_to_live(lives_s: float) -> None:
    with api_double() as double:
        tied = NodeApi(double.connection, "node", "default", plan_time_to_live_s=lives_s)
        tied.run(lambda _: None, NodeReportStatus)
        wait_until(lambda: bool(double.watches), "a watch is opened")
        tied.stop()
    watch_s = float(double.watches[0]["timeoutSeconds"])
    late_s, backoff_s, list_s = 15.0, 10.0, 13.05
    assert watch_s + late_s + backoff_s + list_s < lives_s
