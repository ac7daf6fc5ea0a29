"""The dashboard of a job: what it asks Prometheus exists, and Grafana understands its JSON.

Held against the metrics tables of operator and agent, and against Grafana's own schema types (see grafana_schema).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for

from joulepath_agent.metrics import TABLE as AGENT_TABLE
from joulepath_operator.metrics import TABLE as OPERATOR_TABLE

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = Path(__file__).parent / "grafana_schema"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "charts/joulepath/dashboards/job.json").read_text())
LABELS: Mapping[str, frozenset[str]] = {
    **{row.name: frozenset(row.labels) for row in AGENT_TABLE},
    **{row.name: frozenset(row.labels) for row in OPERATOR_TABLE},
}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def questions() -> Iterator[tuple[str, str, str]]:
    """(panel, expression, legend) of every query."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]


def variable_queries() -> list[str]:
    return [item["query"] for item in DASHBOARD["templating"]["list"] if item["type"] == "query"]


def metrics_of(expression: str) -> set[str]:
    return set(re.findall(r"\bjoulepath_\w+", expression))


@pytest.mark.parametrize("expression", [*(expr for _, expr, _ in questions()), *variable_queries()])
def test_every_metric_and_label_of_a_query_exists(expression: str) -> None:
    names = metrics_of(expression)
    assert names
    assert names <= LABELS.keys(), f"no such metric in the tables: {names - LABELS.keys()}"
    for name, selector in re.findall(r"(joulepath_\w+)\{([^}]*)\}", expression):
        used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
        assert used <= LABELS[name], f"{name} has no label {used - LABELS[name]}"
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        kept = {label.strip() for label in group.split(",")}
        assert all(kept <= LABELS[name] for name in names)
    for name, label in re.findall(r"label_values\((joulepath_\w+)(?:\{[^}]*\})?, (\w+)\)", expression):
        assert label in LABELS[name]


@pytest.mark.parametrize(("panel", "expression", "legend"), list(questions()))
def test_legends_name_labels_that_the_query_keeps(panel: str, expression: str, legend: str) -> None:
    assert legend, f"{panel}: a series without a name"
    grouped = re.findall(r"\bby \(([^)]*)\)", expression)
    aggregated = re.search(r"\b(sum|max|min|avg)\b", expression) is not None
    kept = {label.strip() for group in grouped for label in group.split(",")} if aggregated else None
    for label in re.findall(r"\{\{(\w+)\}\}", legend):
        assert all(label in LABELS[name] for name in metrics_of(expression))
        assert kept is None or label in kept


def test_the_story_is_there() -> None:
    asked = set().union(*(metrics_of(expression) for _, expression, _ in questions()))
    for metric in (
        "joulepath_plan_savings_ratio",
        "joulepath_plan_predicted_savings_ratio",
        "joulepath_plan_bound_savings_ratio",
        "joulepath_gpu_power_watts",
        "joulepath_rank_iteration_seconds",
        "joulepath_plan_t_min_seconds",
        "joulepath_gpu_sm_clock_hertz",
        "joulepath_energyplan_phase",
        "joulepath_leases",
    ):
        assert metric in asked
    stats = {stat for _, expression, _ in questions() for stat in re.findall(r'stat="(\w+)"', expression)}
    assert stats == {"mean", "low", "high"}


def test_panels_have_their_own_numbers_and_places() -> None:
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    taken: set[tuple[int, int]] = set()
    for panel in everything:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken, f"{panel['title']} overlaps another panel"
        assert at["x"] + at["w"] <= 24
        taken |= cells


@cache
def _validator(schema: str, part: str) -> Validator:
    definitions = json.loads((SCHEMAS / f"{schema}.json").read_text())["definitions"]
    whole = {**definitions["Root"]["properties"][part], "definitions": definitions}
    made = validator_for(whole)
    made.check_schema(whole)
    return made(whole)


def _check(value: Any, schema: str, part: str) -> None:
    _validator(schema, part).validate(value)


def test_grafana_understands_the_dashboard() -> None:
    _check({**DASHBOARD, "panels": []}, "dashboard", "dashboard")
    for panel in DASHBOARD["panels"]:
        _check(panel, "dashboard", "row" if panel["type"] == "row" else "panel")


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: str(panel["title"]))
def test_grafana_understands_each_panels_options(panel: dict[str, Any]) -> None:
    _check(panel["options"], panel["type"], "options")
    defaults = panel["fieldConfig"]["defaults"]
    if "custom" in defaults:
        _check(defaults["custom"], panel["type"], "custom")


def test_grafanas_schema_refuses_what_grafana_does_not_know() -> None:
    with pytest.raises(ValidationError):
        _check({**DASHBOARD, "panels": [], "pannels": []}, "dashboard", "dashboard")
    with pytest.raises(ValidationError):
        _check({"drawStyle": "scribble"}, "timeseries", "custom")
