"""The report of a run: what was measured beside what was predicted and published, and whether that is good enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rich.table import Table

from joulepath_crds import ArmSummary, EnergyPlanStatus, Estimate

__all__ = [
    "LEAST_ITERATIONS",
    "LEAST_SHARE_OF_PREDICTED",
    "MOST_SLOWDOWN",
    "failures",
    "report",
    "scale_note",
    "table",
]

LEAST_SHARE_OF_PREDICTED: Final = 0.8
MOST_SLOWDOWN: Final = 0.01
LEAST_ITERATIONS: Final = 30
NULL_TOLERANCE: Final = 0.005


def report(
    status: EnergyPlanStatus,
    *,
    mode: str,
    time_scale: float,
    lag_s: float,
    published_savings: float | None,
    remarks: Sequence[str],
    before: EnergyPlanStatus | None = None,
) -> dict[str, Any]:
    """The report as JSON; ratios are fractions, seconds and joules as measured in scaled time.

    What was planned is null where Observe had no profile to plan on; what was published, where nothing was; and what is
    told of a straggler, where nobody is stretched, or else with what was saved `before` and what follows of what was
    published.

    Raises:
        ValueError: The EnergyPlan has no plan or no measured savings; the text says how far it came.
    """
    measured, plan = status.measured, status.plan
    if measured is None or (plan is None and mode != "Observe"):
        missing = "no plan" if plan is None else "no measured savings"
        raise ValueError(f"the EnergyPlan has {missing}; its phase is {status.phase}: {status.message}")
    held_up = status.straggler if status.straggler is not None and status.straggler.hash else None
    return {
        "iteration_time_s": {
            "control": _estimate(measured.control.iteration_time_s, measured.control),
            "plan": _estimate(measured.plan.iteration_time_s, measured.plan),
        },
        "energy_per_iteration_j": {
            "control": _estimate(measured.control.energy_per_iteration_j, measured.control),
            "plan": _estimate(measured.plan.energy_per_iteration_j, measured.plan),
        },
        "savings": {
            "measured": _estimate(measured.savings),
            "predicted": held_up.predicted_savings if held_up else plan and plan.predicted_savings,
            "bound": None if held_up else plan and plan.bound_savings,
            "published": None if before else published_savings,
        },
        "slowdown": _estimate(measured.slowdown),
        "pairs": measured.pairs,
        "predicted": plan
        and {
            "t_min_s": plan.t_min_s,
            "iteration_time_s": plan.iteration_time_s,
            "baseline_j": plan.baseline_j,
            "energy_j": plan.energy_j,
            "lower_bound_j": plan.lower_bound_j,
        },
        "straggler": held_up
        and {
            "slowdown": held_up.slowdown,
            "reason": held_up.reason,
            "iteration_time_s": held_up.iteration_time_s,
            "predicted_unstretched": held_up.predicted_unstretched,
            "savings_before": before and before.measured and _estimate(before.measured.savings),
            "from_published_frontier": published_savings,
        },
        "granularity": plan and str(plan.granularity),
        "mode": mode,
        "phase": str(status.phase),
        "virtual": True,
        "timeScale": time_scale,
        "lag_s": lag_s,
        "notes": list(remarks),
    }


def _estimate(value: Estimate, arm: ArmSummary | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"mean": value.mean, "ci95": [value.ci95_low, value.ci95_high]}
    return found if arm is None else {**found, "n": arm.iterations}


def scale_note(time_scale: float) -> str:
    """What the time scale means for these numbers."""
    if time_scale == 1:
        return "Seconds and joules are those of the virtual GPUs' model, not scaled."
    return (
        f"Time is scaled by {time_scale:g}: seconds and joules here are {time_scale:g} times those of the GPUs' model, "
        "ratios are not affected."
    )


def failures(found: dict[str, Any]) -> tuple[str, ...]:
    """Why a run is not good enough, in sentences; none if it is."""
    measured, predicted = found["savings"]["measured"], found["savings"]["predicted"]
    slowdown = found["slowdown"]["mean"]
    reasons = []
    if found["mode"] == "Observe":
        low, high = measured["ci95"]
        if not low <= 0 <= high and abs(measured["mean"]) > NULL_TOLERANCE:
            reasons.append(
                "A run that leaves all clocks alone must save nothing; "
                f"measured were {measured['mean']:.2%} ({low:.2%} to {high:.2%})."
            )
    elif measured["mean"] < LEAST_SHARE_OF_PREDICTED * predicted:
        reasons.append(
            f"Measured savings of {measured['mean']:.2%} are under {LEAST_SHARE_OF_PREDICTED:.0%} "
            f"of the predicted {predicted:.2%}."
        )
    if slowdown > MOST_SLOWDOWN:
        low, high = found["slowdown"]["ci95"]
        busy = " Something else kept this machine busy; run it again when it is quiet." if low < MOST_SLOWDOWN else ""
        reasons.append(f"The slowdown of {slowdown:.2%} ({low:.2%} to {high:.2%}) is over {MOST_SLOWDOWN:.0%}.{busy}")
    reasons += [
        f"Only {found['iteration_time_s'][arm]['n']} {arm} iterations were counted, {LEAST_ITERATIONS} are needed: "
        "let the job run longer."
        for arm in ("control", "plan")
        if found["iteration_time_s"][arm]["n"] < LEAST_ITERATIONS
    ]
    return tuple(reasons)


def table(found: dict[str, Any], title: str) -> Table:
    """The report for the terminal."""
    result = Table(title=title, title_justify="left")
    plan = "observed" if found["mode"] == "Observe" else "plan"
    for heading in ("", "default clocks", plan, "difference"):
        result.add_column(heading, justify="left" if not heading else "right")
    for label, key, unit, change in (
        ("iteration time", "iteration_time_s", "s", _percent(found["slowdown"], "+")),
        ("energy an iteration", "energy_per_iteration_j", "J", _percent(_negated(found["savings"]["measured"]), "+")),
    ):
        result.add_row(label, _interval(found[key]["control"], unit), _interval(found[key]["plan"], unit), change)
    counts = [str(found["iteration_time_s"][arm]["n"]) for arm in ("control", "plan")]
    result.add_row("iterations counted", *counts, f"{found['pairs']} pairs of blocks")
    result.add_section()
    savings = found["savings"]
    result.add_row("[bold]savings measured", "", f"[bold]{_percent(savings['measured'])}", "")
    if found["predicted"]:
        result.add_row("savings predicted", "", f"{savings['predicted']:.1%}", f"{found['granularity']} granularity")
    if savings["bound"] is not None:
        result.add_row("no plan can save more than", "", f"{savings['bound']:.1%}", "at that iteration time")
    if straggler := found["straggler"]:
        result.add_row("predicted, others not stretched", "", f"{straggler['predicted_unstretched']:.1%}", "")
        if straggler["savings_before"]:
            result.add_row("measured before", "", _percent(straggler["savings_before"]), "nobody was held up")
        told = "of all eight stages, computed"
        result.add_row("from Perseus's frontier", "", f"{straggler['from_published_frontier']:.1%}", told)
    if savings["published"] is not None:
        result.add_row("published, Perseus", "", f"{savings['published']:.1%}", "at the shortest time")
    return result


def _negated(value: dict[str, Any]) -> dict[str, Any]:
    low, high = value["ci95"]
    return {"mean": -value["mean"], "ci95": [-high, -low]}


def _percent(value: dict[str, Any], sign: str = "") -> str:
    low, high = value["ci95"]
    return f"{100 * value['mean']:{sign}.2f}% ± {50 * (high - low):.2f}"


def _interval(value: dict[str, Any], unit: str) -> str:
    low, high = value["ci95"]
    digits = 3 if unit == "s" else 0
    return f"{value['mean']:.{digits}f} {unit} ± {(high - low) / 2:.{digits + 1}f}"
