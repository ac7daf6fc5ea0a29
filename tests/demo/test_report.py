"""The report: its shape, its arithmetic, and when a run is not good enough."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from demo.published import PERSEUS_SAVINGS, beside_straggler
from demo.report import failures, report, scale_note, table
from demo.workloads import WORKLOADS
from joulepath_crds import EnergyPlanStatus, Straggler

Status = Callable[..., EnergyPlanStatus]


def _report(status: EnergyPlanStatus, mode: str = "Enforce", published: float | None = 0.153) -> dict[str, Any]:
    remarks = (*WORKLOADS["gpt3"].notes(), scale_note(0.5))
    return report(status, mode=mode, time_scale=0.5, lag_s=0.005, published_savings=published, remarks=remarks)


def test_the_report_has_its_documented_shape(status: Status) -> None:
    found = json.loads(json.dumps(_report(status())))
    for key in ("iteration_time_s", "energy_per_iteration_j"):
        for arm in ("control", "plan"):
            assert found[key][arm].keys() == {"mean", "ci95", "n"}
            assert found[key][arm]["n"] == 32
            low, high = found[key][arm]["ci95"]
            assert low < found[key][arm]["mean"] < high
    assert found["savings"]["measured"] == {"mean": 0.152, "ci95": pytest.approx([0.148, 0.156])}
    assert found["savings"]["predicted"] == 0.155
    assert found["savings"]["bound"] == pytest.approx(600 / 3700)
    assert found["savings"]["published"] == 0.153
    assert found["slowdown"].keys() == {"mean", "ci95"}
    assert found["virtual"] is True
    assert found["timeScale"] == 0.5
    assert "no GPU was measured" in found["notes"][0]
    assert any("400 W" in note for note in found["notes"])


def test_a_good_run_passes(status: Status) -> None:
    assert failures(_report(status())) == ()


@pytest.mark.parametrize(("savings", "fails"), [(0.80 * 0.155, False), (0.79 * 0.155, True)])
def test_savings_under_four_fifths_of_the_predicted_fail(status: Status, savings: float, fails: bool) -> None:
    reasons = failures(_report(status(savings=savings)))
    assert bool(reasons) is fails
    assert not fails or "80% of the predicted" in reasons[0]


@pytest.mark.parametrize(("slowdown", "fails"), [(0.010, False), (0.011, True), (-0.02, False)])
def test_a_slowdown_over_one_percent_fails(status: Status, slowdown: float, fails: bool) -> None:
    reasons = failures(_report(status(slowdown=slowdown)))
    assert bool(reasons) is fails
    assert not fails or ("slowdown of 1.10% (" in reasons[0] and "is over 1%" in reasons[0])


def test_too_few_iterations_fail(status: Status) -> None:
    reasons = failures(_report(status(iterations=29)))
    assert len(reasons) == 2
    assert "29 control iterations" in reasons[0]


@pytest.mark.parametrize(("savings", "fails"), [(0.001, False), (0.0, False), (0.02, True), (-0.02, True)])
def test_a_null_run_must_save_nothing(status: Status, savings: float, fails: bool) -> None:
    assert bool(failures(_report(status(savings=savings), mode="Observe"))) is fails


def test_a_null_run_without_a_profile_has_nothing_planned_to_report(status: Status) -> None:
    observed = status(savings=0.0).model_copy(update={"plan": None})
    found = _report(observed, mode="Observe")
    assert failures(found) == ()
    assert (found["predicted"], found["savings"]["predicted"], found["granularity"]) == (None, None, None)
    console = Console(record=True, width=140)
    console.print(table(found, "a title"))
    shown = console.export_text()
    assert "observed" in shown
    assert "predicted" not in shown
    with pytest.raises(ValueError, match="no plan; its phase is Completed"):
        _report(observed)


def test_a_run_without_measurement_has_no_report(status: Status) -> None:
    with pytest.raises(ValueError, match="no measured savings; its phase is Completed"):
        _report(status().model_copy(update={"measured": None}))


def test_the_table_says_what_was_measured(status: Status) -> None:
    console = Console(record=True, width=140)
    console.print(table(_report(status()), "Measured on virtual GPUs"))
    shown = console.export_text()
    for words in ("15.20% ± 0.40", "15.5%", "15.3%", "+0.20%", "-15.20%", "8 pairs"):
        assert words in shown


def test_a_workload_that_nobody_has_published_is_compared_with_nothing(status: Status) -> None:
    found = _report(status(), published=None)
    console = Console(record=True, width=140)
    console.print(table(found, "Measured on virtual GPUs"))
    assert found["savings"]["published"] is None
    assert "published" not in console.export_text()


def test_beside_a_straggler_its_own_prediction_counts_and_what_was_saved_before_is_told(status: Status) -> None:
    straggler = Straggler(
        key="00",
        replicas=(1,),
        slowdown=1.2,
        reason="Heat",
        hash="0123456789abcdef",
        since="2026-01-01T00:00:00Z",
        iteration_time_s=1.7,
        predicted_savings=0.2,
        predicted_unstretched=0.1,
        message="",
    )
    held_up = status(savings=0.155).model_copy(update={"straggler": straggler})
    found = report(
        held_up, mode="Enforce", time_scale=1, lag_s=0.01, published_savings=0.203, remarks=(), before=status()
    )
    assert found["savings"]["predicted"] == 0.2
    assert found["straggler"]["savings_before"]["mean"] == 0.152
    assert json.loads(json.dumps(found))["straggler"]["reason"] == "Heat"
    assert len(failures(found)) == 1, "under four fifths of it"
    console = Console(width=120, record=True)
    console.print(table(found, "title"))
    shown = console.export_text()
    assert "others not stretched" in shown
    assert "20.3%" in shown
    assert "published, Perseus" not in shown
    alone = held_up.model_copy(update={"straggler": straggler.model_copy(update={"hash": None})})
    assert _report(alone)["straggler"] is None, "nobody is stretched"


def test_what_follows_of_the_published_frontier_for_a_straggler_is_what_the_planner_finds_for_the_profile() -> None:
    stretched, unstretched = beside_straggler(1.2)
    assert stretched == pytest.approx(0.2135, abs=0.015)  # joulepath stragglers ... --slower 1.2 --replicas 2
    assert unstretched == pytest.approx(0.1569, abs=0.015)
    assert beside_straggler(1)[0] == pytest.approx(PERSEUS_SAVINGS)
    assert WORKLOADS["straggler"].published() == stretched
    assert WORKLOADS["gpt3"].published() == PERSEUS_SAVINGS
