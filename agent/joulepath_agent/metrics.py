"""The agent's metrics: one table, from which collectors are made and against which dashboards and alerts are checked.

Base units (watts, joules, hertz, seconds); GPU labels as users of dcgm-exporter know them. ``labels`` of a metric are
the same in every sample; what isn't known (a GPU without a rank has no pod) is the empty text.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from joulepath_agent.gpus import GpuError
from joulepath_agent.node import Agent
from joulepath_agent.rank import Rank
from joulepath_crds import Arm

__all__ = ["TABLE", "AgentCollector", "Row"]

log = logging.getLogger(__name__)

_GPU: Final = ("gpu", "UUID", "Hostname")
_RANK: Final = (*_GPU, "namespace", "pod", "job", "rank", "stage")


@dataclass(frozen=True, slots=True)
class Row:
    """One metric as Prometheus serves it; the names of counters end in _total."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    labels: tuple[str, ...]


TABLE: Final[tuple[Row, ...]] = (
    Row("joulepath_gpu_power_watts", "gauge", "Power of the GPU by its own sensor.", _RANK),
    Row("joulepath_gpu_energy_joules_total", "counter", "Energy counter of the GPU, by NVML.", _RANK),
    Row("joulepath_gpu_sm_clock_hertz", "gauge", "SM clock now.", _RANK),
    Row("joulepath_gpu_locked_clock_hertz", "gauge", "Clock that the agent has locked; 0 is default clocks.", _RANK),
    Row("joulepath_rank_iteration_seconds", "gauge", "Median duration of the last iterations; 0 is unknown.", _RANK),
    Row("joulepath_rank_control_seconds", "gauge", "Median iteration at default clocks; 0 is unknown.", _RANK),
    Row("joulepath_rank_iteration_number", "gauge", "Iteration that the GPU is at.", _RANK),
    Row("joulepath_rank_block", "gauge", "1 for the arm that the iteration runs, else 0.", (*_RANK, "arm")),
    Row("joulepath_clock_sets_total", "counter", "Orders to set or reset the clock that NVML took.", _GPU),
    Row("joulepath_clock_set_failures_total", "counter", "Such orders that NVML refused.", _GPU),
    Row("joulepath_gpus", "gauge", "GPUs whose clock can be set; 0 on a node without.", ("Hostname",)),
    Row("joulepath_leases", "gauge", "Ranks whose clock the agent may hold locked.", ("Hostname",)),
    Row("joulepath_lease_ends_total", "counter", "Leases that ended, by reason.", ("Hostname", "reason")),
    Row("joulepath_peer_refusals_total", "counter", "Peers of the socket refused, by reason.", ("Hostname", "reason")),
    Row(
        "joulepath_switching_lag_seconds",
        "gauge",
        "Lag from the order of a clock to the clock in force, once measured.",
        (*_GPU, "direction", "quantile"),
    ),
    Row("joulepath_agent_build_info", "gauge", "1, with the version of the agent.", ("Hostname", "version")),
)

Sample = tuple[tuple[str, ...], float]


class AgentCollector(Collector):
    """Reads the agent when Prometheus asks."""

    def __init__(self, agent: Agent, hostname: str) -> None:
        self._agent, self._hostname = agent, hostname

    def collect(self) -> Iterator[Metric]:
        """One family for each row of the table."""
        samples = self._samples()
        for row in TABLE:
            family: CounterMetricFamily | GaugeMetricFamily
            if row.kind == "counter":
                family = CounterMetricFamily(row.name, row.help, labels=row.labels)
            else:
                family = GaugeMetricFamily(row.name, row.help, labels=row.labels)
            for labels, value in samples[row.name]:
                family.add_metric(labels, value)
            yield family

    def _samples(self) -> Mapping[str, list[Sample]]:
        agent, host = self._agent, self._hostname
        samples: dict[str, list[Sample]] = {row.name: [] for row in TABLE}
        ranks = {rank.setter.gpu.uuid: rank for rank in agent.ranks}
        for uuid, setter in agent.setters.items():
            gpu, rank = setter.gpu, ranks.get(uuid)
            of_gpu = (str(gpu.index), uuid, host)
            of_rank = (*of_gpu, *_rank_labels(rank))
            for name, read, unit in (
                ("joulepath_gpu_power_watts", gpu.power_w, 1.0),
                ("joulepath_gpu_energy_joules_total", gpu.energy_j, 1.0),
                ("joulepath_gpu_sm_clock_hertz", gpu.sm_clock_mhz, 1e6),
            ):
                samples[name] += _read(of_rank, read, unit)
            samples["joulepath_gpu_locked_clock_hertz"].append((of_rank, setter.ordered_mhz * 1e6))
            samples["joulepath_clock_sets_total"].append((of_gpu, setter.sets))
            samples["joulepath_clock_set_failures_total"].append((of_gpu, setter.failures))
            if (lag := setter.lag()) is not None:
                samples["joulepath_switching_lag_seconds"] += [
                    ((*of_gpu, "up", "0.5"), lag.up_median_s),
                    ((*of_gpu, "up", "0.95"), lag.up_p95_s),
                    ((*of_gpu, "down", "0.5"), lag.down_median_s),
                    ((*of_gpu, "down", "0.95"), lag.down_p95_s),
                ]
            if rank is not None:
                samples["joulepath_rank_iteration_seconds"].append((of_rank, rank.history.iteration_time_s))
                samples["joulepath_rank_control_seconds"].append((of_rank, rank.history.control_time_s))
                samples["joulepath_rank_iteration_number"].append((of_rank, rank.iteration))
                samples["joulepath_rank_block"] += [((*of_rank, arm), float(rank.arm is arm)) for arm in Arm]
        samples["joulepath_gpus"].append(((host,), len(agent.setters)))
        samples["joulepath_leases"].append(((host,), sum(rank.leased for rank in ranks.values())))
        samples["joulepath_lease_ends_total"] += _counts(host, agent.lease_ends)
        samples["joulepath_peer_refusals_total"] += _counts(host, agent.refusals)
        samples["joulepath_agent_build_info"].append(((host, agent.version), 1.0))
        return samples


def _rank_labels(rank: Rank | None) -> tuple[str, ...]:
    if rank is None:
        return ("", "", "", "", "")
    where, stages = rank.placement, ",".join(map(str, rank.hello.pipeline.stages))
    return where.namespace, where.pod, where.job, str(rank.hello.rank), stages


def _read(labels: tuple[str, ...], read: Callable[[], float], unit: float) -> Iterable[Sample]:
    try:
        return [(labels, read() * unit)]
    except GpuError as error:
        log.warning("%s; it is missing from the metrics", error)
        return []


def _counts(host: str, counted: Mapping[str, int]) -> Iterable[Sample]:
    return [((host, str(reason)), float(count)) for reason, count in sorted(counted.items())]
