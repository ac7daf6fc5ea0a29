"""The bars: what a thousand nodes may cost.

One holds only if it was measured at the size that it is meant for, in a case that came where it should: what is refused
costs little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

__all__ = ["bars", "growth"]

Result = Mapping[str, Any]
Value = Callable[[Result], float | None]

_MEANT: Final = {
    "one-job": (1024, "1 job of 8,192 ranks on 1,024 nodes"),
    "many-jobs": (100, "100 jobs of 64 ranks"),
    "idle-plans": (1000, "1,000 EnergyPlans without a job"),
    "wide": (8, "64 stages x 512 microbatches on 8 nodes"),
}


def _elsewhere(one: Result) -> float:
    """Plans that aren't where they should be."""
    wanted = "Active" if one["jobs"] else "Pending"
    found: float = one["energy_plans"] - one["reached"]["phases"].get(wanted, 0)
    return found


def _cores(process: str) -> Value:
    return lambda one: one["steady"]["cores"][process]


def _delivery(value: Callable[[Mapping[str, Any]], float]) -> Value:
    return lambda one: value(one["delivery"]) if one["delivery"] and not one["delivery"]["nodes_missing"] else None


def _kib(one: Result) -> float:
    most: int = max(one["largest_bytes"].values())
    return most / 1024


_ROWS: Final[tuple[tuple[str, tuple[str, ...], float, Value], ...]] = (
    ("EnergyPlans that don't come where they should", tuple(_MEANT), 0, _elsewhere),
    ("API server in steady state, CPU seconds a second", ("one-job",), 0.5, _cores("API server")),
    ("calls of an agent, a minute", ("one-job",), 3, lambda one: one["steady"]["calls_a_node_and_minute"]),
    ("largest object in etcd, KiB", ("one-job", "wide"), 256, _kib),
    (
        "bytes of one switch of plans, by the plan's size times its nodes",
        ("one-job", "wide"),
        2,
        _delivery(lambda one: one["bytes_ratio"]),
    ),
    ("memory of the operator at most, MiB", tuple(_MEANT), 400, lambda one: one["peak_mib"]["operator"]),
    ("operator in steady state, CPU seconds a second", ("one-job", "many-jobs", "idle-plans"), 0.2, _cores("operator")),
    ("a look of the operator, CPU seconds", ("one-job", "wide"), 0.1, lambda one: one["look_cpu_s"]),
    (
        "plan ready to applied on every node, p99, seconds",
        ("one-job",),
        10,
        _delivery(lambda one: one["ready_to_applied_s"]["p99"]),
    ),
    (
        "straggler to applied on every node, p99, seconds (nothing answers to stragglers yet)",
        ("one-job",),
        5,
        lambda one: None,
    ),
)


def bars(results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """By the largest size of each scenario that was measured; a value that there isn't is None."""
    for name, scenarios, limit, value in _ROWS:
        for scenario in scenarios:
            meant, words = _MEANT[scenario]
            case = max((one for one in results if one["scenario"] == scenario), key=_size, default=None)
            found = None if case is None else value(case)
            measured_at = 0 if case is None else _size(case)
            reached = case is not None and case["reached"]["not_reached"] is None
            yield {
                "name": f"{name}: {words}",
                "value": found,
                "limit": limit,
                "meant_for_size": meant,
                "measured_at_size": measured_at,
                "reached": reached,
                "holds": found is not None and found <= limit and measured_at >= meant and reached,
            }


def growth(results: Sequence[Result]) -> dict[str, list[dict[str, Any]]]:
    """By scenario, what grows with its size."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in results:
        row = {
            "size": _size(one),
            "reached": one["reached"]["phases"],
            "after_s": one["reached"]["last_came_after_s"],
            "api_server_cores": one["steady"]["cores"]["API server"],
            **_reports(one),
            "etcd_cores": one["steady"]["cores"]["etcd"],
            "operator_cores": one["steady"]["cores"]["operator"],
            "operator_mib": one["peak_mib"]["operator"],
            "look_cpu_s": one["look_cpu_s"],
            "largest_kib": round(_kib(one), 1),
            "calls_a_node_and_minute": one["steady"].get("calls_a_node_and_minute"),
            "switch_bytes": one["delivery"] and one["delivery"]["bytes_got"],
        }
        found.setdefault(one["scenario"], []).append(row)
    return found


def _reports(one: Result) -> dict[str, float]:
    """What the API server takes for each NodeState, all else that it does counted with them; and how many fail."""
    calls = one["steady"].get("by_call_a_node_and_minute", {})
    if not (written := calls.get("patch nodestates/status calls")):
        return {}
    each_s = one["steady"]["cores"]["API server"] * 60 / (written * one["simulated_nodes"])
    failed = calls.get("patch nodestates/status failed", 0.0) / written
    return {"api_server_cpu_s_a_report": round(each_s, 4), "reports_failed": round(failed, 3)}


def _size(one: Result) -> int:
    size: int = one["size"]
    return size
