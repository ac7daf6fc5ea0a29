"""The operator's metrics: one table, which dashboards and alert rules are checked against.

What concerns an EnergyPlan is read from its status when Prometheus asks; a plan that is gone has no series left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily

from joulepath_crds import EnergyPlanStatus, MetricRow, Phase
from joulepath_operator.facts.names import NamespacedName

__all__ = ["TABLE", "Metrics"]

_PLAN: Final = ("namespace", "name", "job")
_STOPPED: Final = "joulepath_injection_stopped"

TABLE: Final[tuple[MetricRow, ...]] = (
    MetricRow(
        "joulepath_energyplan_phase", "gauge", (*_PLAN, "phase"), "1 for the phase that an EnergyPlan is in, else 0."
    ),
    MetricRow(
        "joulepath_plan_savings_ratio",
        "gauge",
        (*_PLAN, "stat"),
        "Measured fraction of energy saved; stat is mean, or low and high of the 95% interval. Absent until known.",
    ),
    MetricRow(
        "joulepath_plan_slowdown_ratio",
        "gauge",
        (*_PLAN, "stat"),
        "Measured fraction by which an iteration lasts longer with the plan; stat as in the savings.",
    ),
    MetricRow("joulepath_plan_predicted_savings_ratio", "gauge", _PLAN, "Fraction of energy predicted to be saved."),
    MetricRow("joulepath_plan_bound_savings_ratio", "gauge", _PLAN, "Fraction that no plan can exceed at that time."),
    MetricRow(
        "joulepath_plan_iteration_seconds", "gauge", (*_PLAN, "arm"), "Measured seconds of an iteration, by arm."
    ),
    MetricRow("joulepath_plan_t_min_seconds", "gauge", _PLAN, "Predicted seconds of an iteration at default clocks."),
    MetricRow("joulepath_plan_target_seconds", "gauge", _PLAN, "Predicted seconds of an iteration with the plan."),
    MetricRow(
        "joulepath_plan_energy_per_iteration_joules",
        "gauge",
        (*_PLAN, "arm"),
        "Measured joules of an iteration, all GPUs of the job, by arm.",
    ),
    MetricRow(
        "joulepath_straggler_slowdown_ratio",
        "gauge",
        (*_PLAN, "replica"),
        "How many times as long work takes in a replica that the others wait for. Absent while none is known.",
    ),
    MetricRow(
        "joulepath_straggler_savings_ratio",
        "gauge",
        (*_PLAN, "others"),
        "Fraction of energy predicted to be saved beside a straggler, with the others stretched or not (unstretched).",
    ),
    MetricRow("joulepath_planner_seconds", "histogram", (), "Seconds that the planner took."),
    MetricRow("joulepath_reconcile_errors_total", "counter", (), "Times that handling an EnergyPlan failed."),
    MetricRow("joulepath_queue_depth", "gauge", (), "EnergyPlans that wait to be handled, or are."),
    MetricRow(
        _STOPPED,
        "gauge",
        ("namespace",),
        "1 for each namespace in which pods get no init container for now, as ours has kept one from starting.",
    ),
)
_HELP: Final = {row.name: row for row in TABLE}


class Metrics:
    """All metrics of one operator; `stopped` tells the namespaces in which injection is."""

    def __init__(
        self, queue_depth: Callable[[], int] = lambda: 0, stopped: Callable[[], Iterable[str]] = tuple
    ) -> None:
        self._stopped = stopped
        self.registry = CollectorRegistry()
        self._statuses: dict[NamespacedName, tuple[str, EnergyPlanStatus]] = {}
        self.planner_seconds = Histogram(
            "joulepath_planner_seconds",
            _HELP["joulepath_planner_seconds"].help,
            buckets=(0.1, 0.3, 1, 3, 10, 30, 100),
            registry=self.registry,
        )
        self.errors = Counter(
            "joulepath_reconcile_errors", _HELP["joulepath_reconcile_errors_total"].help, registry=self.registry
        )
        depth = Gauge("joulepath_queue_depth", _HELP["joulepath_queue_depth"].help, registry=self.registry)
        depth.set_function(queue_depth)
        self.registry.register(self)

    def tell(self, key: NamespacedName, job: str, status: EnergyPlanStatus) -> None:
        self._statuses[key] = job, status

    def forget(self, key: NamespacedName) -> None:
        self._statuses.pop(key, None)

    def collect(self) -> Iterable[Metric]:
        """Called by prometheus_client at each scrape."""
        families = {
            row.name: GaugeMetricFamily(row.name, row.help, labels=row.labels)
            for row in TABLE
            if row.labels[:3] == _PLAN or row.name == _STOPPED
        }
        for namespace in self._stopped():
            families[_STOPPED].add_metric([namespace], 1)
        for (namespace, name), (job, status) in list(self._statuses.items()):
            for metric, extra, value in _series(status):
                families[metric].add_metric([namespace, name, job, *extra], value)
        return families.values()


def _series(status: EnergyPlanStatus) -> Iterator[tuple[str, tuple[str, ...], float]]:
    for phase in Phase:
        yield "joulepath_energyplan_phase", (phase.value,), float(status.phase is phase)
    if plan := status.plan:
        yield "joulepath_plan_predicted_savings_ratio", (), plan.predicted_savings
        yield "joulepath_plan_bound_savings_ratio", (), plan.bound_savings
        yield "joulepath_plan_t_min_seconds", (), plan.t_min_s
        yield "joulepath_plan_target_seconds", (), plan.iteration_time_s
    if straggler := status.straggler:
        for replica in straggler.replicas:
            yield "joulepath_straggler_slowdown_ratio", (str(replica),), straggler.slowdown
        for others, savings in (
            ("stretched", straggler.predicted_savings),
            ("unstretched", straggler.predicted_unstretched),
        ):
            if savings is not None:
                yield "joulepath_straggler_savings_ratio", (others,), savings
    if measured := status.measured:
        for metric, estimate in (
            ("joulepath_plan_savings_ratio", measured.savings),
            ("joulepath_plan_slowdown_ratio", measured.slowdown),
        ):
            yield metric, ("mean",), estimate.mean
            yield metric, ("low",), estimate.ci95_low
            yield metric, ("high",), estimate.ci95_high
        for arm, summary in (("control", measured.control), ("plan", measured.plan)):
            yield "joulepath_plan_iteration_seconds", (arm,), summary.iteration_time_s.mean
            yield "joulepath_plan_energy_per_iteration_joules", (arm,), summary.energy_per_iteration_j.mean
