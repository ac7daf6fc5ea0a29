"""The metrics are what their table says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from joulepath_crds import Straggler
from joulepath_operator.metrics import TABLE, Metrics


def families(metrics: Metrics) -> dict[str, Any]:
    return {one.name: one for one in text_string_to_metric_families(generate_latest(metrics.registry).decode())}


def test_every_metric_of_the_table_is_there_with_its_type_and_labels(new_world: Callable[..., Any]) -> None:
    world = new_world()
    world.settle()
    world.run(200)
    metrics = Metrics(queue_depth=lambda: 3, stopped=lambda: ["team"])
    straggler = Straggler(
        key="00",
        replicas=(3,),
        slowdown=1.2,
        reason="Announced",
        since="2026-01-01T00:00:00Z",
        predicted_savings=0.2,
        predicted_unstretched=0.1,
        message="",
    )
    metrics.tell(("team", "plan"), "gpt3", world.status.model_copy(update={"straggler": straggler}))
    found = families(metrics)
    for row in TABLE:
        family = found[row.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (row.type, row.help)
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert labels == set(row.labels)
    assert set(found) - {"joulepath_reconcile_errors", "python_info"} <= {row.name for row in TABLE} | {
        f"{row.name}_created" for row in TABLE
    } | {"joulepath_reconcile_errors_created"}
    phases = {sample.labels["phase"]: sample.value for sample in found["joulepath_energyplan_phase"].samples}
    assert phases["Active"] == 1
    assert sum(phases.values()) == 1
    savings = {sample.labels["stat"]: sample.value for sample in found["joulepath_plan_savings_ratio"].samples}
    assert savings["low"] < savings["mean"] < savings["high"]
    savings = {one.labels["others"]: one.value for one in found["joulepath_straggler_savings_ratio"].samples}
    assert savings == {"stretched": 0.2, "unstretched": 0.1}
    assert found["joulepath_queue_depth"].samples[0].value == 3


def test_a_plan_that_is_gone_leaves_no_series(new_world: Callable[..., Any]) -> None:
    world = new_world()
    world.settle()
    metrics = Metrics()
    metrics.tell(("team", "plan"), "gpt3", world.status)
    metrics.forget(("team", "plan"))
    assert not families(metrics)["joulepath_energyplan_phase"].samples
