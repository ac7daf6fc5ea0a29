"""Each query of the dashboard, asked of a real Prometheus while the example job runs, finds data."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from demo.options import Options
from demo.place import JOB_NAMESPACE
from demo.run import installed, place_for
from demo.scraping import query
from demo.watching import Watcher
from joulepath_crds import Phase

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

DASHBOARD = Path(__file__).resolve().parents[2] / "charts/joulepath/dashboards/job.json"
OPTIONS = Options(time_scale=0.25, steps=300, granularity="phase")
"""Phases: at this pace single instructions are too short to switch for on two busy cores, and any plan will do here."""
MEASURED_WITHIN_S = 480.0
MAY_BE_EMPTY = ("Ends of leases",)
"""Nothing has ended while the job runs."""


@dataclass(frozen=True, slots=True)
class Running:
    """A job of which savings are measured, and the Prometheus that scrapes."""

    prometheus: str


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    place = place_for(OPTIONS)
    place.prepare()
    with installed(place, OPTIONS, Console(stderr=True)) as prometheus:
        assert prometheus is not None
        watcher = Watcher(place.kubeconfig, JOB_NAMESPACE, "gpt3", prometheus)
        end = time.monotonic() + MEASURED_WITHIN_S
        while (seen := watcher.look()).status.measured is None:
            over = seen.job in ("Failed", "Succeeded") or seen.status.phase is Phase.REFUSED
            assert not over, f"over before savings were measured: {seen.job}, {seen.status.message}"
            assert time.monotonic() < end, f"no savings after {MEASURED_WITHIN_S} s: {seen.status}"
            time.sleep(2)
        time.sleep(5)  # two scrapes
        yield Running(prometheus)


def _filled(expression: str) -> str:
    for name, value in {"namespace": JOB_NAMESPACE, "energyplan": "gpt3", "job": "gpt3"}.items():
        expression = expression.replace(f"${name}", value)
    return expression.replace("$__rate_interval", "1m")


def test_every_query_finds_data(running: Running) -> None:
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    asked = {
        (panel["title"], target["expr"]): query(running.prometheus, _filled(target["expr"]))
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    }
    empty = [f"{title}: {expr}" for (title, expr), found in asked.items() if not found and title not in MAY_BE_EMPTY]
    assert len(asked) > 20
    assert not empty


def test_the_variables_find_namespace_plan_and_job(running: Running) -> None:
    found = query(running.prometheus, "joulepath_energyplan_phase == 1")
    assert [(labels["namespace"], labels["name"], labels["job"]) for labels, _ in found] == [
        (JOB_NAMESPACE, "gpt3", "gpt3")
    ]


def test_eight_ranks_tell_their_clocks_and_power(running: Running) -> None:
    for metric in ("joulepath_gpu_sm_clock_hertz", "joulepath_gpu_power_watts"):
        found = query(running.prometheus, f'{metric}{{namespace="{JOB_NAMESPACE}"}}')
        assert {labels["rank"] for labels, _ in found} == {str(rank) for rank in range(8)}
        assert all(value > 0 for _, value in found)
